//! What is set in code wins over all settings, and of the names of a queue the one that is closest to the route.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use pythia_core::broker::Broker;
use pythia_core::{
    Config, Job, MemoryBroker, Message, QueueName, Route, Runner, WorkError, worker_fn,
};
use tokio::time::sleep;

/// The queues that a runner serves, of those that are named here.
async fn served(config: &Config, queue_in_code: Option<&'static str>) -> Vec<String> {
    let broker = MemoryBroker::new();
    for queue in ["orders", "of_program", "of_route", "of_code"] {
        let queue = QueueName::new(queue).unwrap();
        broker
            .publish(&queue, vec![Message::new("1")])
            .await
            .unwrap();
    }
    let served = Arc::new(Mutex::new(Vec::new()));
    let serving = Arc::clone(&served);
    let worker = worker_fn(move |job: &Job<u64>| {
        serving.lock().unwrap().push(job.queue().to_string());
        async { Ok(()) }
    });
    let route = Route::new("orders", worker).configure(move |settings| {
        if let Some(queue) = queue_in_code {
            settings.queue = Some(queue.to_owned());
        }
    });
    let runner = Runner::builder().config(config).route(&broker, route);
    let minute = sleep(Duration::from_mins(1));
    runner.build().unwrap().run_until(minute).await.unwrap();
    let served = served.lock().unwrap();
    served.clone()
}

#[tokio::test(start_paused = true)]
async fn a_queue_has_the_name_that_is_closest_to_the_route() {
    let environment = [("REDIS_QUEUE", "of_program")];
    let of_route = "routes.orders.queue = \"of_route\"";
    for (toml, environment, in_code, expected) in [
        ("", [].as_slice(), None, "orders"),
        ("", &environment, None, "of_program"),
        ("broker.queue = \"of_program\"", &[], None, "of_program"),
        (of_route, &environment, None, "of_route"),
        (of_route, &environment, Some("of_code"), "of_code"),
    ] {
        let config = Config::from_sources(Some(toml), environment.iter().copied()).unwrap();
        assert_eq!(served(&config, in_code).await, [expected], "{toml}");
    }
}

#[tokio::test]
async fn the_queue_of_a_program_is_refused_if_it_has_several_routes() {
    let broker = MemoryBroker::new();
    let route = |name| Route::new(name, worker_fn(async |_: &Job<u64>| Ok(())));
    for (config, place) in [
        (
            Config::from_sources(None, [("REDIS_QUEUE", "eu")]),
            "environment variable REDIS_QUEUE",
        ),
        (Config::from_toml("broker.queue = \"eu\""), "line 1"),
    ] {
        let runner = Runner::builder()
            .config(&config.unwrap())
            .route(&broker, route("orders"))
            .route(&broker, route("mails"));
        assert_eq!(
            runner.build().unwrap_err().to_string(),
            format!(
                "broker.queue is \"eu\" ({place}), but there are 2 routes, and it can't be the queue of all: set \
                 `queue` in [routes.NAME] instead"
            )
        );
    }
    let error = Config::from_toml("broker.queue = \"two words\"")
        .unwrap()
        .check();
    assert!(error.unwrap_err().to_string().starts_with("broker.queue: "));
}

#[tokio::test(start_paused = true)]
async fn what_is_set_on_a_route_wins_over_every_setting() {
    let environment = [
        ("PYTHIA_PRESET", "durable"),
        ("PYTHIA_RETRY__MAX_ATTEMPTS", "7"),
    ];
    let config = Config::from_sources(Some("retry.max_attempts = 9"), environment).unwrap();
    for (in_code, expected) in [(None, 7), (Some(2), 2)] {
        let broker = MemoryBroker::new();
        let queue = QueueName::new("orders").unwrap();
        broker
            .publish(&queue, vec![Message::new("1")])
            .await
            .unwrap();
        let attempts = Arc::new(Mutex::new(0));
        let counting = Arc::clone(&attempts);
        let worker = worker_fn(move |_: &Job<u64>| {
            *counting.lock().unwrap() += 1;
            async { Err::<(), _>(WorkError::retryable("no")) }
        });
        let route = Route::new("orders", worker).configure(move |settings| {
            if let Some(attempts) = in_code {
                settings.retry.max_attempts = std::num::NonZeroU32::new(attempts).unwrap();
            }
        });
        let runner = Runner::builder().config(&config).route(&broker, route);
        let hour = sleep(Duration::from_hours(1));
        runner.build().unwrap().run_until(hour).await.unwrap();
        assert_eq!(*attempts.lock().unwrap(), expected);
    }
}

#[tokio::test]
async fn a_preset_that_a_broker_can_not_keep_is_named_by_the_refusal() {
    for (toml, place) in [
        ("preset = \"durable\"", "preset \"durable\""),
        (
            "preset = \"durable\"\nroutes.orders.at_least_once = true",
            "line 2",
        ),
    ] {
        let config = Config::from_toml(&format!("{toml}\nmemory.fan_out = true")).unwrap();
        let broker = MemoryBroker::with_config(config.section("memory").unwrap()).unwrap();
        let route = Route::new("orders", worker_fn(async |_: &Job<u64>| Ok(())));
        let runner = Runner::builder().config(&config).route(&broker, route);
        let error = runner.build().unwrap_err().to_string();
        let expected =
            format!("queue \"orders\": redelivery (`at_least_once`), by {place} can't be had");
        assert!(error.starts_with(&expected), "{error}");
    }
}
