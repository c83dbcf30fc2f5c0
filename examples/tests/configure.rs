//! `docs/configure.md` says what is so.

use std::process::Command;

use pythia_core::Config;
use pythia_core::config::Preset;

const PAGE: &str = include_str!("../../docs/configure.md");

/// The lines below a heading, up to the next one.
fn below(heading: &str) -> impl Iterator<Item = &'static str> {
    PAGE.lines()
        .skip_while(move |line| *line != heading)
        .skip(1)
        .take_while(|line| !line.starts_with('#'))
}

/// The rows of the first table below a heading, without its head.
fn table(heading: &str) -> impl Iterator<Item = Vec<&'static str>> {
    below(heading)
        .skip_while(|line| !line.starts_with("|---"))
        .skip(1)
        .take_while(|line| line.starts_with('|'))
        .map(|line| line.trim_matches(['|', ' ']).split(" | ").collect())
}

/// The text of the first block of code in a language below a heading.
fn block(language: &str, heading: &str) -> String {
    let fence = format!("```{language}");
    // A comment in a block looks like a heading, so the page is cut by hand.
    let (_, text) = PAGE.split_once(&format!("\n{heading}\n")).unwrap();
    let (_, text) = text.split_once(&format!("{fence}\n")).unwrap();
    text.split_once("```").unwrap().0.to_owned()
}

fn code(text: &str) -> &str {
    text.trim_matches('`')
}

#[test]
fn the_tables_of_presets_are_the_presets() {
    for &preset in Preset::ALL {
        let written: Vec<_> = table(&format!("### {preset}")).collect();
        let set: Vec<_> = preset
            .settings()
            .iter()
            .map(|setting| {
                let [name, value] = [setting.name, setting.value].map(|text| format!("`{text}`"));
                vec![name, value, setting.reason.to_owned()]
            })
            .collect();
        assert_eq!(written, set, "{preset}");
    }
}

#[test]
fn each_short_name_sets_what_the_page_says() {
    let mut names = 0;
    for row in table("## Variables") {
        let (variable, setting) = (code(row[0]), code(row[1]));
        let text = if variable == "PYTHIA_PRESET" {
            "durable"
        } else {
            "1"
        };
        let config = Config::from_sources(None, [(variable, text)]).unwrap();
        let source = config.source(setting).unwrap().to_string();
        assert_eq!(source, format!("environment variable {variable}"));
        names += 1;
    }
    assert_eq!(names, 10);
}

#[test]
fn the_errors_are_those_that_are_shown() {
    let shown = block("text", "## Variables");
    let [variable, key] = [0, 1].map(|line| shown.lines().nth(line).unwrap());
    let error = Config::from_sources(None, [("PYTHIA_MAX_CONCURRENCY", "1")]).unwrap_err();
    assert_eq!(error.to_string(), variable);

    let folder = tempfile::tempdir().unwrap();
    std::fs::write(
        folder.path().join("pythia.toml"),
        "[retry]\nmax_atempts = 1",
    )
    .unwrap();
    let config = Config::from_file(folder.path().join("pythia.toml")).unwrap();
    let error = config.check().unwrap_err().to_string();
    let elsewhere = format!("{}/", folder.path().display());
    assert_eq!(error.replace(&elsewhere, ""), key);
}

#[test]
fn the_explanation_is_the_one_that_is_shown() {
    let heading = "## Where a value comes from";
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("pythia.toml"), block("toml", heading)).unwrap();
    let explain = Command::new(env!("CARGO_BIN_EXE_explain"))
        .current_dir(folder.path())
        .env_clear()
        .envs([
            ("PYTHIA_CONFIG", "pythia.toml"),
            ("PYTHIA_PRESET", "throughput"),
            ("PYTHIA_BROKER_TYPE", "list"),
        ])
        .output()
        .unwrap();
    assert!(explain.status.success(), "{explain:?}");
    let explained = String::from_utf8(explain.stdout).unwrap();
    let shown = block("text", heading);
    assert!(explained.starts_with(&shown), "{explained}");
}

/// Whatever the file documents, the explanation lists.
#[test]
fn every_documented_setting_is_explained() {
    let explain = Command::new(env!("CARGO_BIN_EXE_explain"))
        .env_clear()
        .output()
        .unwrap();
    let explained = String::from_utf8(explain.stdout).unwrap();
    let mut section = String::new();
    for line in include_str!("../../config/pythia.toml").lines() {
        if let Some((name, _)) = line.strip_prefix('[').and_then(|rest| rest.split_once(']')) {
            section = format!("{name}.");
        } else if let Some((key, _)) = line.split_once(" = ")
            && key
                .bytes()
                .all(|byte| byte.is_ascii_lowercase() || byte == b'_')
        {
            let setting = format!("\n{section}{key} = ");
            assert!(format!("\n{explained}").contains(&setting), "{setting}");
        }
    }
}

#[test]
fn no_explanation_shows_a_secret() {
    let explain = Command::new(env!("CARGO_BIN_EXE_explain"))
        .env_clear()
        .envs([
            (
                "REDIS_URL",
                "redis-sentinel://app:hunter2@s/m?sentinel_password=hunter3",
            ),
            ("REDIS_PASSWORD", "hunter4"),
            ("PYTHIA_REDIS__STORE_URL", "redis://:hunter5@h"),
        ])
        .output()
        .unwrap();
    let explained = String::from_utf8(explain.stdout).unwrap();
    assert!(
        explained.contains("redis.url = \"redis-sentinel://s:26379/m\""),
        "{explained}"
    );
    assert!(!explained.contains("hunter"), "{explained}");
}
