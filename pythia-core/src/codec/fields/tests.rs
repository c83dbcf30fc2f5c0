use std::collections::BTreeMap;

use proptest::prelude::*;
use serde::Deserialize;

use super::*;

fn entry(fields: &[(&[u8], &[u8])]) -> Payload {
    let pairs = fields.iter();
    let copied =
        pairs.map(|(field, value)| (Bytes::copy_from_slice(field), Bytes::copy_from_slice(value)));
    Payload::Fields(copied.collect())
}

fn read<T: DeserializeOwned>(fields: &[(&str, &str)]) -> Result<T, String> {
    let pairs = fields.iter();
    let bytes: Vec<_> = pairs
        .map(|(field, value)| (field.as_bytes(), value.as_bytes()))
        .collect();
    Fields
        .decode(&entry(&bytes))
        .map_err(|error| error.to_string())
}

/// The message of the error, without its common beginning.
#[track_caller]
fn refused<T: DeserializeOwned + fmt::Debug>(fields: &[(&str, &str)]) -> String {
    let error = read::<T>(fields).unwrap_err();
    let problem = error.strip_prefix("not the fields that the worker expects: ");
    problem.expect("the common beginning").to_owned()
}

#[derive(Clone, Copy, Debug, PartialEq, Deserialize)]
#[serde(rename_all = "lowercase")]
enum Kind {
    Bot,
    Human,
    Moved { to: u32 },
}

#[derive(Debug, PartialEq, Deserialize)]
struct UserId(u64);

#[derive(Debug, PartialEq, Deserialize)]
struct Place {
    x: f64,
    y: f64,
}

#[derive(Debug, PartialEq, Deserialize)]
struct Visit {
    user_id: UserId,
    page: String,
    body: Bytes,
    kind: Kind,
    vip: bool,
    grade: char,
    score: f32,
    big: i128,
    referrer: Option<String>,
    campaign: Option<u32>,
    #[serde(default)]
    retries: u8,
    tags: Vec<String>,
    place: Place,
    counts: BTreeMap<String, u64>,
    pair: (u8, i8),
    nothing: (),
}

#[test]
fn every_type_is_read_from_its_text() {
    let visit: Visit = read(&[
        ("user_id", "123"),
        ("page", "/home"),
        ("body", "{not json"),
        ("kind", "bot"),
        ("vip", "True"),
        ("grade", "ä"),
        ("score", "-1.5e3"),
        ("big", "-170141183460469231731687303715884105728"),
        ("campaign", ""),
        ("tags", r#"["a", "b"]"#),
        ("place", r#"{"x": 1, "y": 2.5}"#),
        ("counts", r#"{"a": 1}"#),
        ("pair", "[1, -1]"),
        ("nothing", ""),
        ("nobody asked", "for this"),
    ])
    .unwrap();
    let expected = Visit {
        user_id: UserId(123),
        page: "/home".into(),
        body: "{not json".into(),
        kind: Kind::Bot,
        vip: true,
        grade: 'ä',
        score: -1_500.0,
        big: i128::MIN,
        referrer: None,
        campaign: None,
        retries: 0,
        tags: vec!["a".into(), "b".into()],
        place: Place { x: 1.0, y: 2.5 },
        counts: [("a".into(), 1)].into(),
        pair: (1, -1),
        nothing: (),
    };
    assert_eq!(visit, expected);
}

#[derive(Debug, PartialEq, Deserialize)]
struct One<T> {
    it: T,
}

fn one<T: DeserializeOwned>(text: &str) -> Result<T, String> {
    read::<One<T>>(&[("it", text)]).map(|one| one.it)
}

proptest! {
    #[test]
    fn what_is_written_as_text_is_read(
        int: i64, wide: u128, float: f64, bit: bool, letter: char, text: String, opt: Option<u16>, list: Vec<String>,
    ) {
        prop_assert_eq!(one::<i64>(&int.to_string()).unwrap(), int);
        prop_assert_eq!(one::<u128>(&wide.to_string()).unwrap(), wide);
        prop_assert_eq!(one::<f64>(&float.to_string()).unwrap().to_bits(), float.to_bits());
        prop_assert_eq!(one::<bool>(&bit.to_string()).unwrap(), bit);
        prop_assert_eq!(one::<char>(&letter.to_string()).unwrap(), letter);
        prop_assert_eq!(one::<String>(&text).unwrap(), &*text);
        let written = opt.map(|number| number.to_string()).unwrap_or_default();
        prop_assert_eq!(one::<Option<u16>>(&written).unwrap(), opt);
        prop_assert_eq!(one::<Vec<String>>(&serde_json::to_string(&list).unwrap()).unwrap(), list);
        prop_assert_eq!(read::<BTreeMap<String, i64>>(&[(&text, &int.to_string())]).unwrap(), [(text, int)].into());
    }

    #[test]
    fn any_fields_are_read_or_refused_without_panic(
        pairs in proptest::collection::vec(proptest::collection::vec(any::<u8>(), 0..16), 0..6),
    ) {
        let named: Vec<_> = ["user_id", "page", "kind", "it"]
            .iter()
            .zip(&pairs)
            .map(|(field, value)| (field.as_bytes(), &value[..]))
            .collect();
        let random: Vec<_> = pairs.windows(2).map(|pair| (&pair[0][..], &pair[1][..])).collect();
        for fields in [entry(&named), entry(&random)] {
            drop(Codec::<Visit>::decode(&Fields, &fields));
            drop(Codec::<One<Kind>>::decode(&Fields, &fields));
            drop(Codec::<BTreeMap<String, serde_json::Value>>::decode(&Fields, &fields));
        }
    }
}

#[test]
fn a_wrong_value_is_refused_with_its_field_and_its_text() {
    let it = |error: &str| format!("field \"it\": {error}");
    for (error, expected) in [
        (
            one::<u64>("12x").unwrap_err(),
            "invalid value: string \"12x\", expected u64",
        ),
        (
            one::<u8>("256").unwrap_err(),
            "invalid value: string \"256\", expected u8",
        ),
        (
            one::<u64>("").unwrap_err(),
            "invalid value: string \"\", expected u64",
        ),
        (
            one::<i32>(" 1").unwrap_err(),
            "invalid value: string \" 1\", expected i32",
        ),
        (
            one::<bool>("yes").unwrap_err(),
            "invalid value: string \"yes\", expected a boolean",
        ),
        (
            one::<char>("ab").unwrap_err(),
            "invalid value: string \"ab\", expected a character",
        ),
        (
            one::<()>("ab").unwrap_err(),
            "invalid value: string \"ab\", expected unit",
        ),
        (
            one::<Kind>("cat").map(drop).unwrap_err(),
            "unknown variant `cat`, expected one of `bot`, `human`, `moved`",
        ),
        (
            one::<Vec<u8>>("[1,").unwrap_err(),
            "not the JSON that is expected: EOF while parsing a value at line 1 column 3",
        ),
        (
            one::<Vec<u8>>("[1] 2").unwrap_err(),
            "not the JSON that is expected: trailing characters at line 1 column 5",
        ),
        (
            one::<Place>("1,2").map(drop).unwrap_err(),
            "not the JSON that is expected: invalid type: integer `1`, expected struct Place at line 1 column 1",
        ),
    ] {
        assert!(error.ends_with(&it(expected)), "{error}");
    }
}

#[test]
fn long_values_are_not_repeated_in_full() {
    let long = "ä".repeat(1_000_000);
    let error = refused::<One<u64>>(&[("it", &long)]);
    assert!(
        error.contains("… (2000000 bytes)\", expected u64") && error.len() < 250,
        "{error}"
    );
    let error = refused::<One<Kind>>(&[("it", &long)]);
    assert!(
        error.starts_with("field \"it\": unknown variant") && error.len() < 800,
        "{error}"
    );
    let error = refused::<BTreeMap<u8, u8>>(&[(&long, "1")]);
    assert!(
        error.starts_with("the name of field \"ää") && error.len() < 500,
        "{error}"
    );
}

#[test]
fn what_is_not_utf_8_is_refused_as_text_and_taken_as_bytes() {
    let fields = entry(&[(b"it", b"a\xff\"")]);
    let error = Codec::<One<String>>::decode(&Fields, &fields).unwrap_err();
    let expected = r#"field "it": invalid value: "a\xff\"" that are not UTF-8, expected a string"#;
    assert!(error.to_string().ends_with(expected), "{error}");
    let one: One<Bytes> = Fields.decode(&fields).unwrap();
    assert_eq!(one.it, &b"a\xff\""[..]);
    let long = [0xff; 1_000];
    let error = Codec::<One<u64>>::decode(&Fields, &entry(&[(b"it", &long)])).unwrap_err();
    assert!(error.to_string().len() < 400, "{error}");
}

#[test]
fn a_field_whose_name_is_not_utf_8_is_like_any_other_that_nobody_asked_for() {
    #[derive(Debug, Deserialize)]
    #[serde(deny_unknown_fields)]
    struct Strict {}

    let fields = entry(&[(b"it", b"1"), (b"\xff", b"2")]);
    let one: One<u8> = Fields.decode(&fields).unwrap();
    assert_eq!(one.it, 1);
    assert!(Codec::<Strict>::decode(&Fields, &fields).is_err());
    let error = Codec::<BTreeMap<String, u8>>::decode(&Fields, &fields).unwrap_err();
    let expected =
        r#"the name of field "\xff": invalid value: "\xff" that are not UTF-8, expected a string"#;
    assert!(error.to_string().ends_with(expected), "{error}");
}

#[test]
fn unknown_fields_are_ignored_unless_they_are_denied() {
    #[derive(Debug, PartialEq, Deserialize)]
    #[serde(deny_unknown_fields)]
    struct Strict {
        it: u8,
    }

    assert_eq!(read(&[("it", "1"), ("more", "2")]), Ok(One { it: 1u8 }));
    assert_eq!(read(&[("it", "1")]), Ok(Strict { it: 1 }));
    assert_eq!(
        refused::<Strict>(&[("it", "1"), ("more", "2")]),
        "the name of field \"more\": unknown field `more`, expected `it`"
    );
}

#[test]
fn a_field_that_occurs_twice_is_an_error_in_a_struct_and_the_last_one_wins_in_a_map() {
    let twice = [("it", "1"), ("it", "2")];
    assert_eq!(refused::<One<u8>>(&twice), "duplicate field `it`");
    assert_eq!(read(&twice), Ok(BTreeMap::from([("it".to_owned(), 2)])));
}

#[test]
fn an_entry_without_fields_has_what_is_optional() {
    #[derive(Debug, PartialEq, Deserialize)]
    struct Optional {
        it: Option<u8>,
    }

    assert_eq!(read(&[]), Ok(Optional { it: None }));
    assert_eq!(refused::<One<u8>>(&[]), "missing field `it`");
}

#[test]
fn an_enum_is_its_variant_by_name() {
    #[derive(Debug, PartialEq, Deserialize)]
    enum Event {
        Created { id: u64 },
        Removed(u64),
    }

    assert_eq!(
        read(&[("Created", r#"{"id": 7}"#)]),
        Ok(Event::Created { id: 7 })
    );
    assert_eq!(read(&[("Removed", "7")]), Ok(Event::Removed(7)));
    assert!(refused::<Event>(&[("Moved", "7")]).contains("unknown variant `Moved`"));
    refused::<Event>(&[]);
    assert_eq!(
        one::<Kind>(r#"{"moved": {"to": 7}}"#),
        Ok(Kind::Moved { to: 7 })
    );
}

#[test]
fn wrappers_are_seen_through() {
    #[derive(Debug, PartialEq, Deserialize)]
    struct Wrapped(One<u8>);

    assert_eq!(read(&[("it", "1")]), Ok(Some(Wrapped(One { it: 1 }))));
}

#[test]
fn what_takes_anything_is_given_text() {
    let value: serde_json::Value = read(&[("it", "1")]).unwrap();
    assert_eq!(value, serde_json::json!({"it": "1"}));
}

#[test]
fn what_is_no_struct_or_map_is_refused() {
    assert_eq!(
        refused::<u64>(&[("it", "1")]),
        "invalid type: map, expected u64"
    );
    let error = Codec::<One<u8>>::decode(&Fields, &Payload::from("{}")).unwrap_err();
    assert!(
        error
            .to_string()
            .ends_with("one body, not the fields of a stream entry")
    );
}
