//! `redis-cluster://`: three masters with a replica each, slots that move and masters that go.

use pythia_core::observe::GapCause;
use pythia_core::testing::Record;
use pythia_redis::testing::Cluster;

use super::sentinel::run_all;
use super::{PATTERNS, all_patterns_work, refusal};
use crate::bench::Bench;

#[tokio::test]
async fn every_pattern_works_on_a_cluster() {
    let cluster = Cluster::start().await;
    all_patterns_work(&format!("redis.url = {:?}", cluster.url())).await;
}

#[tokio::test]
async fn sharded_channels_and_prefixes_work_on_a_cluster() {
    let cluster = Cluster::start().await;
    all_patterns_work(&format!(
        "redis.url = {:?}\nredis.pubsub.mode = \"sharded\"\nredis.key_prefix = \"shop:\"",
        cluster.url()
    ))
    .await;
}

#[tokio::test]
async fn workers_follow_slots_that_move() {
    let cluster = Cluster::start().await;
    let benches = benches(&cluster.url());
    let [list, stream, pubsub] = &benches;
    let work = async {
        tokio::join!(
            list.reaches(0..100),
            stream.reaches(0..100),
            pubsub.reaches(0..1)
        );
        for bench in [list, stream] {
            let slot = bench.queue.as_str();
            let elsewhere = (cluster.owner_of(slot).await + 1) % 3;
            tokio::join!(
                cluster.migrate_slot(slot, elsewhere),
                list.publish(100..200),
                stream.publish(100..200)
            );
        }
        tokio::join!(list.reaches(200..300), stream.reaches(200..300));
        pubsub.reaches(1_000..1_001).await;
    };
    run_all(&benches, work).await;
}

/// Half of a queue's keys are here and half there: commands are told to ask elsewhere, or to come back later.
#[tokio::test]
async fn workers_live_through_a_slot_that_is_half_moved() {
    let cluster = Cluster::start().await;
    let benches = benches(&cluster.url());
    let [list, stream, pubsub] = &benches;
    let work = async {
        tokio::join!(
            list.reaches(0..50),
            stream.reaches(0..50),
            pubsub.reaches(0..1)
        );
        for bench in [list, stream] {
            let slot = bench.queue.as_str();
            let elsewhere = (cluster.owner_of(slot).await + 1) % 3;
            let half = cluster.begin_migration(slot, elsewhere).await;
            half.move_key(slot).await;
            half.finish().await;
        }
        tokio::join!(list.reaches(50..150), stream.reaches(50..150));
    };
    run_all(&benches, work).await;
}

#[tokio::test]
async fn workers_follow_a_planned_fail_over() {
    let cluster = Cluster::start().await;
    let benches = benches(&cluster.url());
    let [list, stream, pubsub] = &benches;
    let work = async {
        tokio::join!(
            list.reaches(0..100),
            stream.reaches(0..100),
            pubsub.reaches(0..1)
        );
        for bench in [list, stream] {
            let master = cluster.owner_of(bench.queue.as_str()).await;
            tokio::join!(
                cluster.fail_over(master),
                list.publish(100..200),
                stream.publish(100..200)
            );
        }
        tokio::join!(list.reaches(200..300), stream.reaches(200..300));
        pubsub.reaches(1_000..1_001).await;
    };
    run_all(&benches, work).await;
}

/// Each master in turn, the one that the URL names among them. By then nobody needs that name any more.
#[tokio::test]
async fn workers_follow_when_any_master_is_killed_the_seed_too() {
    let mut cluster = Cluster::start().await;
    let benches = benches(&cluster.url_of(0));
    let [list, stream, pubsub] = &benches;
    let work = async {
        tokio::join!(
            list.reaches(0..50),
            stream.reaches(0..50),
            pubsub.reaches(0..1)
        );
        for master in 0..3 {
            // What the replica lacks is lost with its master, and that is Redis' own doing.
            cluster.node(master).wait_until_replicated().await;
            cluster.kill(master).await;
            let from = 50 * (master as u64 + 1);
            tokio::join!(
                list.reaches(from..from + 50),
                stream.reaches(from..from + 50)
            );
            pubsub.reaches(1_000 * from..1_000 * from + 1).await;
            cluster.revive(master).await;
        }
    };
    run_all(&benches, work).await;
}

/// What a worker that went away was given comes back to another one, a lease later.
#[tokio::test]
async fn what_a_dead_worker_held_comes_back() {
    let cluster = Cluster::start().await;
    let settings = format!("redis.url = {:?}\nredis.lease = \"600ms\"", cluster.url());
    for pattern in ["list", "stream"] {
        let dead = Bench::with(&settings, pattern).apart();
        dead.publish(0..20).await;
        let mut subscription = dead.broker.subscribe(&dead.queue).await.unwrap();
        let mut held = Vec::new();
        while held.is_empty() {
            subscription.source.receive(20, &mut held).await.unwrap();
        }
        drop((subscription, dead));
        let heir = Bench::with(&settings, pattern).apart();
        heir.run(heir.sees(20)).await;
    }
}

#[tokio::test]
async fn sharded_channels_are_heard_again_after_their_slot_has_moved() {
    let cluster = Cluster::start().await;
    let settings = format!(
        "redis.url = {:?}\nredis.pubsub.mode = \"sharded\"",
        cluster.url()
    );
    let bench = Bench::with(&settings, "pubsub").apart();
    let slot = bench.queue.as_str();
    let work = async {
        bench.reaches(0..1).await;
        let elsewhere = (cluster.owner_of(slot).await + 1) % 3;
        cluster.migrate_slot(slot, elsewhere).await;
        bench.reaches(1_000..1_001).await;
        let master = cluster.owner_of(slot).await;
        cluster.fail_over(master).await;
        bench.reaches(2_000..2_001).await;
    };
    bench.run(work).await;
}

fn benches(url: &str) -> [Bench; 3] {
    PATTERNS.map(|pattern| Bench::new(url, pattern).apart())
}

/// The numbers are those of all masters together.
#[tokio::test]
async fn a_cluster_is_pinged_and_measured_as_a_whole() {
    let cluster = Cluster::start().await;
    for master in 0..3 {
        let limit = ["CONFIG", "SET", "maxmemory", "100mb"];
        assert_eq!(cluster.node(master).cli(&limit).await, "OK");
    }
    let bench = Bench::new(&cluster.url(), "list");
    bench.broker.ping().await.unwrap();
    let admin = bench.broker.admin().unwrap();
    let stats = admin.server().await.unwrap().expect("Redis has one");
    assert_eq!(stats.memory_max, Some(300 << 20));
    let one: u64 = 500_000;
    assert!(stats.memory_used.unwrap() > 3 * one, "{stats:?}");
}

/// Commands are refused meanwhile, which says that they did nothing: publishing repeats them for as long as it may wait.
#[tokio::test]
async fn publishing_waits_for_a_slot_that_is_on_its_way() {
    let cluster = Cluster::start().await;
    for pattern in PATTERNS {
        let settings = format!(
            "redis.url = {:?}\nredis.publish_wait = \"10s\"\nredis.command_attempts = 1",
            cluster.url()
        );
        let bench = Bench::with(&settings, pattern).apart();
        let slot = bench.queue.as_str();
        let elsewhere = (cluster.owner_of(slot).await + 1) % 3;
        bench.once(0).await.unwrap();
        let half = cluster.begin_migration(slot, elsewhere).await;
        let (published, ()) = tokio::join!(bench.once(1), async {
            half.move_key(slot).await;
            tokio::time::sleep(std::time::Duration::from_millis(300)).await;
            half.finish().await;
        });
        published.unwrap();
        bench.once(2).await.unwrap();
    }
}

#[tokio::test]
async fn a_node_of_a_cluster_is_not_taken_for_a_single_server() {
    let cluster = Cluster::start().await;
    let stranger = (cluster.owner_of("orders").await + 1) % 3;
    let url = format!("redis://127.0.0.1:{}", cluster.node(stranger).port());
    let error = refusal(&format!("redis.url = {url:?}")).await;
    assert!(error.contains("redis-cluster://"), "{error}");
}

/// A subscription is with one node: that another one goes costs it nothing, and nothing is heard twice.
#[tokio::test]
async fn a_subscription_has_a_gap_when_its_own_node_goes_and_no_other() {
    let mut cluster = Cluster::start().await;
    let bench = Bench::new(&cluster.url(), "pubsub").apart();
    let gaps = || {
        let is_gap = |cause| cause == GapCause::Disconnected;
        let records = bench.log.records();
        let gaps = records
            .iter()
            .filter(|one| matches!(one, Record::Gap { cause, .. } if is_gap(*cause)));
        gaps.count()
    };
    let work = async {
        bench.reaches(0..1).await;
        let listened = ["PUBSUB", "NUMSUB", bench.queue.as_str()];
        let mut holder = None;
        for master in 0..3 {
            if cluster.node(master).cli(&listened).await.ends_with('1') {
                holder = Some(master);
            }
        }
        let holder = holder.expect("a node has the subscription");
        cluster.kill((holder + 1) % 3).await;
        bench.reaches(1_000..1_001).await;
        assert_eq!(gaps(), 0);
        cluster.kill(holder).await;
        bench.reaches(2_000..2_001).await;
        assert_eq!(gaps(), 1);
    };
    bench.run(work).await;
    assert_eq!(bench.log.received(), bench.seen().len() as u64);
}
