//! Presets: what each sets, that it arrives, and that it gives way to whatever is set.

use super::*;
use crate::MemoryConfig;

/// The settings of this crate that a preset may set, as code sees them.
fn seen(config: &Config) -> BTreeMap<String, String> {
    let explained = config.explain().unwrap();
    explained
        .settings()
        .iter()
        .map(|setting| (setting.name.clone(), setting.value.clone()))
        .collect()
}

#[test]
fn each_preset_sets_exactly_what_it_says() {
    let defaults = seen(&Config::default());
    for &preset in Preset::ALL {
        let config = Config::default().with_preset(preset);
        config.check().unwrap();
        let mut expected = defaults.clone();
        expected.insert("preset".into(), format!("\"{preset}\""));
        for setting in preset.settings() {
            assert!(setting.reason.len() > 20, "{setting:?}");
            let source = config.source(setting.name).unwrap();
            assert_eq!(source.to_string(), format!("preset \"{preset}\""));
            // Settings of other crates are looked at in theirs.
            if let Some(value) = expected.get_mut(setting.name) {
                let is_text = value.starts_with('"');
                let changed = if is_text {
                    format!("\"{}\"", setting.value)
                } else {
                    setting.value.to_owned()
                };
                assert_ne!(*value, changed, "{} is the default", setting.name);
                *value = changed;
            } else {
                assert!(setting.name.starts_with("redis."), "{setting:?}");
            }
        }
        assert_eq!(seen(&config), expected);
    }
}

#[test]
fn a_preset_arrives_where_it_is_used() {
    let [durable, low_latency, throughput] =
        [Preset::Durable, Preset::LowLatency, Preset::Throughput]
            .map(|preset| Config::default().with_preset(preset));
    let route = |config: &Config| config.route::<RouteConfig>("orders").unwrap();
    assert!(route(&durable).at_least_once);
    assert_eq!(route(&durable).retry.max_attempts.get(), 30);
    let memory: MemoryConfig = durable.section("memory").unwrap();
    assert_eq!(memory.dedupe_window, Duration::from_hours(24));
    assert_eq!(route(&low_latency).linger, Duration::ZERO);
    assert_eq!(route(&low_latency).breaker.open_for, Duration::from_secs(1));
    assert_eq!(route(&throughput).batch_bytes.get(), 32 << 20);
}

#[test]
fn whatever_is_set_wins_over_the_preset() {
    for &preset in Preset::ALL {
        for setting in preset.settings() {
            let expected = config("", &[]).with_preset(preset).source(setting.name);
            assert_eq!(expected.unwrap().layer(), Layer::Preset);
            // The file sets each to what the preset would, and is named all the same.
            let value = if setting.value.parse::<u64>().is_ok() || setting.value == "true" {
                setting.value.to_owned()
            } else {
                format!("\"{}\"", setting.value)
            };
            let toml = format!("preset = \"{preset}\"\n{} = {value}", setting.name);
            let source = config(&toml, &[]).source(setting.name).unwrap();
            assert_eq!(source.to_string(), "line 2");
        }
    }
    let config = config(
        "preset = \"throughput\"\n[worker]\nbatch = 7",
        &[("PYTHIA_MAX_CONCURRENT", "8")],
    );
    let route: RouteConfig = config.route("orders").unwrap();
    assert_eq!((route.batch.get(), route.concurrency.get()), (7, 8));
    assert_eq!(route.linger, Duration::from_millis(100));
}

#[test]
fn code_wins_over_a_variable_and_that_over_the_file() {
    let named = config(
        "preset = \"durable\"\nworker.batch = 7",
        &[("PYTHIA_PRESET", " low_latency ")],
    );
    assert_eq!(named.preset().unwrap(), Some(Preset::LowLatency));
    assert_eq!(named.source("retry.max_attempts"), None);
    let chosen = named.with_preset(Preset::Throughput);
    assert_eq!(chosen.preset().unwrap(), Some(Preset::Throughput));
    assert_eq!(chosen.source("preset").unwrap().to_string(), "code");
    assert_eq!(chosen.source("retry.initial_delay"), None);
    let route: RouteConfig = chosen.route("orders").unwrap();
    assert_eq!((route.batch.get(), route.concurrency.get()), (7, 1_000));
    assert_eq!(config("preset = \"\"", &[]).preset().unwrap(), None);
}

#[test]
fn an_unknown_preset_is_refused_with_the_closest() {
    for (toml, environment, expected) in [
        (
            "\npreset = \"thruput\"",
            [].as_slice(),
            "preset: unknown value \"thruput\" (line 2); did you mean \"throughput\"?",
        ),
        (
            "",
            &[("PYTHIA_PRESET", "low-latency")],
            "preset: unknown value \"low-latency\" (environment variable PYTHIA_PRESET); did you mean \"low_latency\"?",
        ),
        (
            "preset = \"best\"",
            &[],
            "preset: unknown value \"best\" (line 1); known are durable, low_latency, throughput",
        ),
        (
            "presett = \"durable\"",
            &[],
            "unknown setting \"presett\" (line 1); did you mean \"preset\"?",
        ),
    ] {
        assert_eq!(refused(toml, environment), expected);
    }
    assert!(refused("[preset]", &[]).starts_with("preset: "));
}
