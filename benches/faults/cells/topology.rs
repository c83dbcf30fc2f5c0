//! What happens to Redis where there are several: Sentinel and Cluster.

use std::io;
use std::time::Duration;

use tokio::time::sleep;

use super::{AFTER_CUT, Cell, FORGETS, OUTAGE};
use crate::plan::Group;
use crate::scene::{Redis, Scene, Setup, Topology};

pub(super) const CELLS: [Cell; 5] = [
    Cell::new(
        "Sentinel, planned",
        "sentinels promote the replica",
        |scene| Box::pin(sentinels_fail_over(scene)),
    )
    .on(SENTINELS)
    .allowing(FORGETS)
    .within(AFTER_CUT),
    Cell::new(
        "Sentinel, killed",
        "the primary is killed; what was not replicated is lost with it",
        |scene| Box::pin(sentinels_promote(scene)),
    )
    .on(SENTINELS)
    .allowing(FORGETS)
    .within(AFTER_CUT),
    Cell::new(
        "Cluster, slots move",
        "the slots of all queues move to other masters",
        |scene| Box::pin(slots_move(scene)),
    )
    .on(CLUSTER)
    .allowing(OUTAGE)
    .within(AFTER_CUT),
    Cell::new(
        "Cluster, planned",
        "replicas take over from all three masters",
        |scene| Box::pin(cluster_fails_over(scene)),
    )
    .on(CLUSTER)
    .allowing(OUTAGE)
    .within(AFTER_CUT),
    Cell::new(
        "Cluster, killed",
        "a master is killed; what was not replicated is lost with it",
        |scene| Box::pin(a_master_dies(scene)),
    )
    .on(CLUSTER)
    .allowing(FORGETS)
    .within(AFTER_CUT),
];

const SENTINELS: Setup = Setup {
    topology: Topology::Sentinels,
    server: &[],
    ..Setup::ALL
};
const CLUSTER: Setup = Setup {
    topology: Topology::Cluster,
    server: &[],
    ..Setup::ALL
};
const QUEUES: [Group; 4] = [Group::List, Group::Ordered, Group::Fleeting, Group::Stream];

async fn sentinels_fail_over(scene: &mut Scene) -> io::Result<()> {
    scene.fault(true);
    if let Redis::Sentinels(sentinels) = &mut scene.redis {
        sentinels.fail_over().await;
    }
    scene.fault(false);
    Ok(())
}

async fn sentinels_promote(scene: &mut Scene) -> io::Result<()> {
    scene.fault(true);
    if let Redis::Sentinels(sentinels) = &mut scene.redis {
        sentinels.kill_primary().await;
    }
    scene.fault(false);
    Ok(())
}

async fn slots_move(scene: &mut Scene) -> io::Result<()> {
    for group in QUEUES {
        scene.fault(true);
        if let Redis::Cluster(cluster) = &scene.redis {
            let elsewhere = (cluster.owner_of(group.queue()).await + 1) % 3;
            cluster.migrate_slot(group.queue(), elsewhere).await;
        }
        scene.fault(false);
        sleep(Duration::from_millis(500)).await;
    }
    Ok(())
}

async fn cluster_fails_over(scene: &mut Scene) -> io::Result<()> {
    for master in 0..3 {
        scene.fault(true);
        if let Redis::Cluster(cluster) = &scene.redis {
            cluster.fail_over(master).await;
        }
        scene.fault(false);
        sleep(Duration::from_secs(1)).await;
    }
    Ok(())
}

async fn a_master_dies(scene: &mut Scene) -> io::Result<()> {
    scene.fault(true);
    if let Redis::Cluster(cluster) = &mut scene.redis {
        let owner = cluster.owner_of(Group::List.queue()).await;
        cluster.kill(owner).await;
    }
    scene.fault(false);
    Ok(())
}
