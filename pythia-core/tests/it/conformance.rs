//! The conformance suite on the in-memory broker, in both of its modes, and on one that is wrapped.

use std::num::NonZeroUsize;
use std::sync::Arc;
use std::time::Duration;

use pythia_core::broker::{Broker, Guarantee};
use pythia_core::testing::FaultyBroker;
use pythia_core::testing::conformance::{Capabilities, Setup};
use pythia_core::{MemoryBroker, MemoryConfig, QueueName};

const LIMIT: usize = 1_000;

fn config() -> MemoryConfig {
    let mut config = MemoryConfig::default();
    config.lease = Duration::from_secs(1);
    config.max_message_bytes = LIMIT;
    config
}

fn setup_of(broker: Arc<dyn Broker>, mut capabilities: Capabilities) -> Setup {
    capabilities.max_message_bytes = Some(LIMIT);
    capabilities.virtual_time = true;
    Setup::new(broker, QueueName::new("orders").unwrap(), capabilities)
}

mod queue {
    use super::*;

    async fn setup() -> Setup {
        let broker = MemoryBroker::with_config(config()).unwrap();
        setup_of(Arc::new(broker), Capabilities::at_least_once())
    }

    pythia_core::conformance_tests!(
        #[tokio::test(start_paused = true)]
        setup
    );
}

mod fan_out {
    use super::*;

    async fn setup() -> Setup {
        let mut config = config();
        config.fan_out = true;
        config.buffer = NonZeroUsize::new(250).unwrap();
        let mut capabilities = Capabilities::at_most_once();
        assert_eq!(capabilities.guarantee, Guarantee::AtMostOnce);
        capabilities.fan_out = true;
        capabilities.dedupe = true;
        capabilities.fields = true;
        capabilities.store = true;
        capabilities.buffer = Some(config.buffer.get());
        setup_of(
            Arc::new(MemoryBroker::with_config(config).unwrap()),
            capabilities,
        )
    }

    pythia_core::conformance_tests!(
        #[tokio::test(start_paused = true)]
        setup
    );
}

/// A decorator that changed anything by itself would make every fault test doubtful.
mod wrapped_without_faults {
    use super::*;

    async fn setup() -> Setup {
        let broker = FaultyBroker::new(MemoryBroker::with_config(config()).unwrap());
        setup_of(Arc::new(broker), Capabilities::at_least_once())
    }

    pythia_core::conformance_tests!(
        #[tokio::test(start_paused = true)]
        setup
    );
}
