//! More than one server.

use pythia_redis::doctor::{Code, Severity};
use pythia_redis::testing::{Cluster, Sentinels};

use super::{config, mend, none_of, report, the};

#[tokio::test]
async fn every_master_of_a_cluster_is_examined() {
    let cluster = Cluster::start_with(&["--appendonly", "yes"]).await;
    for pattern in ["list", "stream"] {
        let config = config(pattern, &cluster.url(), "");
        let healthy = report(&config).await;
        assert!(healthy.findings().is_empty(), "{healthy}");
        assert_eq!(healthy.servers().len(), 3);

        let bad = cluster.node(1);
        bad.cli(&["CONFIG", "SET", "maxmemory", "1gb"]).await;
        bad.cli(&["CONFIG", "SET", "maxmemory-policy", "allkeys-lru"])
            .await;
        let one_is_bad = report(&config).await;
        let finding = the(&one_is_bad, Code::EvictionPolicy);
        assert_eq!(finding.severity(), Severity::Critical);
        assert_eq!(finding.about(), format!("127.0.0.1:{}", bad.port()));
        mend(bad, finding);
        none_of(&report(&config).await, Code::EvictionPolicy);
    }
}

#[tokio::test]
async fn by_way_of_sentinels_the_primary_is_examined() {
    let sentinels = Sentinels::start().await;
    let config = config("stream", &sentinels.url(), "");
    let report = report(&config).await;
    assert_eq!(
        report.servers()[0].role.as_deref(),
        Some("master"),
        "{report}"
    );
    none_of(&report, Code::Replica);
    none_of(&report, Code::MissingPermission);
    mend(sentinels.primary(), the(&report, Code::NoPersistence));
    none_of(&super::report(&config).await, Code::NoPersistence);
}
