//! Programs that show Pythia at work: `cargo run --example quickstart`, `cargo run --bin worker`,
//! `cargo run --bin explain`, `cargo run --bin tally -- --help`.

/// The README's code is compiled with the documentation tests.
#[cfg(doctest)]
#[doc = include_str!("../../README.md")]
struct Readme;

/// So is the code of the page on settings.
#[cfg(doctest)]
#[doc = include_str!("../../docs/configure.md")]
struct Configure;

/// And that of the page on failures.
#[cfg(doctest)]
#[doc = include_str!("../../docs/failures.md")]
struct Failures;
