//! Receiving and answering again after every fault that the setup can bring about.

use tokio::time::Instant;

use super::lane::{messages, text};
use super::{PATIENCE, Setup, TICK};
use crate::settlement::{Disposition, Settlement};

/// After each fault the lane receives again, by itself or with its subscription made again: what a runner does when a
/// read fails for good.
pub async fn a_lane_receives_again_after_every_fault(setup: &Setup) {
    let mut subscription = setup.lane().await.subscription;
    for (n, fault) in setup.faults.iter().enumerate() {
        (fault.strike)().await;
        let deadline = Instant::now() + PATIENCE;
        let body = format!("{n} after {}", fault.name);
        // Published until it arrives: a fault may swallow what was published into it.
        let mut deliveries = Vec::new();
        while !text(&deliveries).contains(&&*body) {
            assert!(
                Instant::now() < deadline,
                "nothing received within {PATIENCE:?} after {}",
                fault.name
            );
            let published = setup.try_publish(messages([body.clone()])).await;
            let received = subscription.source.receive(10, &mut deliveries).await;
            if received.is_err_and(|error| error.is_subscription_lost())
                && let Ok(made_again) = setup.broker.subscribe(&setup.queue).await
            {
                subscription = made_again;
            }
            if published.is_err() {
                tokio::time::sleep(TICK).await;
            }
        }
        let acks: Vec<_> = deliveries
            .into_iter()
            .map(|delivery| Settlement::new(delivery, Disposition::Ack))
            .collect();
        subscription
            .settler
            .settle(&acks)
            .await
            .expect("a broker that hands out takes back");
    }
}

/// A ping is answered, before any subscription and again after each fault.
pub async fn a_ping_is_answered_again_after_every_fault(setup: &Setup) {
    setup
        .broker
        .ping()
        .await
        .expect("a broker that is up answers");
    // Some faults befall what a subscription makes.
    let _lane = setup.lane().await;
    for fault in &setup.faults {
        (fault.strike)().await;
        let answers = || async { setup.broker.ping().await.is_ok() };
        setup
            .eventually(&format!("an answer after {}", fault.name), answers)
            .await;
    }
}
