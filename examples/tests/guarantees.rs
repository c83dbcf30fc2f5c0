//! What `docs/GUARANTEES.md` names as the proof of a promise is a test.

use std::path::Path;

#[test]
fn every_promise_has_tests_and_every_name_is_one() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    let page = std::fs::read_to_string(root.join("docs/GUARANTEES.md")).unwrap();
    let (mut wrong, mut promises) = (Vec::new(), 0);
    let (_, page) = page.split_once("\n# The thirteen promises\n").unwrap();
    for (number, promise) in (1..).zip(page.split("\n## ").skip(1)) {
        promises = number;
        assert!(promise.starts_with(&format!("{number}. ")), "{promise}");
        let proofs: Vec<_> = promise.split("\n- ").skip(1).collect();
        if proofs.is_empty() {
            wrong.push(format!("promise {number} has no tests"));
        }
        for proof in proofs {
            let mut quoted = proof.split('`').skip(1).step_by(2);
            let file = quoted.next().unwrap();
            let source = std::fs::read_to_string(root.join(file)).unwrap_or_default();
            let missing = quoted.filter(|name| !is_test(&source, name));
            wrong.extend(missing.map(|name| format!("{file}: no test {name}")));
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
    assert_eq!(promises, 13);
}

/// Whether the source has that function under the attribute of a test, or as a check of the conformance suite, each of
/// which is made a test by a macro (whose own test sees that none is left out).
fn is_test(source: &str, name: &str) -> bool {
    let declared = format!("fn {name}(");
    source.match_indices(&declared).any(|(at, _)| {
        let before = &source[..at];
        let attribute = before.trim_end_matches("async ").trim_end();
        let line = attribute.lines().last().unwrap_or_default().trim();
        line == "pub" || line.starts_with("#[") && line.contains("test")
    })
}
