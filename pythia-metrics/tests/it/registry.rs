//! What is registered, by which settings, and beside what.

use pythia_core::observe::{Event, Observer};
use pythia_metrics::prometheus::{IntCounter, Registry};
use pythia_metrics::{BucketBounds, FamilyOrGroup, MetricsErrorKind, PrometheusObserver, names};

use crate::exposition::Exposition;
use crate::metrics::{Metrics, everything, queue, text};
use crate::promtool::promtool;

#[test]
fn each_family_can_be_switched_off() {
    for family in names::ALL {
        let metrics = Metrics::with(|config| {
            config.disabled_families = [FamilyOrGroup::new(family.name).unwrap()].into();
        });
        everything(&metrics);
        let page = Exposition::parse(&text(&metrics.registry));
        assert!(!page.families.contains_key(family.name), "{}", family.name);
        assert_eq!(page.families.len(), names::ALL.len() - 1, "{}", family.name);
    }
}

#[test]
fn each_group_can_be_switched_off_and_takes_no_other_with_it() {
    let names: Vec<_> = names::GROUPS.iter().map(|group| group.name).collect();
    for wanted in ["histograms", "memory", "pool", "queue_depth"] {
        assert!(names.contains(&wanted), "{wanted}");
    }
    for group in names::GROUPS {
        let metrics = Metrics::with(|config| {
            config.disabled_families = [FamilyOrGroup::new(group.name).unwrap()].into();
        });
        everything(&metrics);
        let page = Exposition::parse(&text(&metrics.registry));
        for family in names::ALL {
            assert_eq!(
                page.families.contains_key(family.name),
                !group.families.contains(&family.name),
                "{} without {}",
                family.name,
                group.name
            );
        }
    }
}

#[test]
fn metrics_that_are_not_enabled_are_not_there() {
    let metrics = Metrics::with(|config| config.enabled = false);
    everything(&metrics);
    assert_eq!(text(&metrics.registry), "");
}

#[test]
fn each_histogram_has_the_buckets_that_were_set() {
    let metrics = Metrics::with(|config| {
        config.processing_buckets = BucketBounds::new([11.0]).unwrap();
        config.wait_buckets = BucketBounds::new([12.0]).unwrap();
        config.round_trip_buckets = BucketBounds::new([13.0]).unwrap();
    });
    everything(&metrics);
    for (family, bound) in [
        ("pythia_job_processing_seconds", "le=\"11\""),
        ("pythia_job_wait_seconds", "le=\"12\""),
        ("pythia_settle_seconds", "le=\"13\""),
        ("pythia_broker_command_seconds", "le=\"13\""),
    ] {
        let lines = metrics.lines(family);
        assert_eq!(lines.matches("le=\"").count(), 2, "{lines}");
        assert!(lines.contains(bound), "{lines}");
    }
}

#[test]
fn metrics_of_the_user_are_on_the_same_page() {
    let metrics = Metrics::new();
    let parcels = IntCounter::new("shop_parcels_total", "Parcels that were shipped.").unwrap();
    metrics
        .registry
        .register(Box::new(parcels.clone()))
        .unwrap();
    everything(&metrics);
    parcels.inc_by(3);
    assert_eq!(metrics.value("shop_parcels_total"), Some(3.0));
    assert_eq!(
        metrics.value("pythia_messages_received_total{queue=\"orders\"}"),
        Some(7.0)
    );
    promtool(&text(&metrics.registry));
}

#[test]
fn a_registry_takes_them_once_and_whole() {
    let metrics = Metrics::new();
    let error = PrometheusObserver::register(&metrics.registry).unwrap_err();
    assert_eq!(error.kind(), MetricsErrorKind::AlreadyRegistered);
    assert!(
        error.to_string().contains("this registry has them already"),
        "{error}"
    );
    // A clone counts into the same metrics.
    let second = metrics.observer.clone();
    second.on_event(&Event::Received {
        queue: &queue("orders"),
        count: 1,
    });
    metrics.received(&queue("orders"), 1);
    assert_eq!(
        metrics.value("pythia_messages_received_total{queue=\"orders\"}"),
        Some(2.0)
    );

    let registry = Registry::new();
    let taken = IntCounter::new("pythia_gaps_total", "Somebody else's.").unwrap();
    registry.register(Box::new(taken)).unwrap();
    let error = PrometheusObserver::register(&registry).unwrap_err();
    assert_ne!(error.kind(), MetricsErrorKind::Bind);
    assert!(
        error.to_string().contains("could not register the metrics"),
        "{error}"
    );
    let page = text(&registry);
    assert_eq!(page.matches("# TYPE").count(), 1, "{page}");
}
