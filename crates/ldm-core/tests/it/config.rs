//! Strict YAML: errors with the key, the expected type, and the line.

use std::path::Path;

use ldm_core::{Error, config};
use serde::Deserialize;

#[derive(Debug, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
struct Outer {
    name: String,
    inner: Inner,
}

#[derive(Debug, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
struct Inner {
    width: i64,
    #[serde(default)]
    levels: Vec<i64>,
    rate: Option<f64>,
}

const TEXT: &str = "name: tiny\ninner:\n  width: 32\n  levels: [1, 2]\n";

fn parse(text: &str, overrides: &[&str]) -> ldm_core::Result<Outer> {
    let overrides: Vec<String> = overrides.iter().map(|each| (*each).to_owned()).collect();
    config::parse(text, Path::new("tiny.yaml"), &overrides)
}

#[track_caller]
fn check_error(text: &str, overrides: &[&str], parts: &[&str]) {
    let error = parse(text, overrides).unwrap_err();
    assert!(matches!(error, Error::Config { .. }));
    let message = error.to_string();
    for part in ["tiny.yaml: "].iter().chain(parts) {
        assert!(message.contains(part), "{message}, expected {part}");
    }
}

#[test]
fn a_config_is_read() {
    let inner = Inner { width: 32, levels: vec![1, 2], rate: None };
    assert_eq!(parse(TEXT, &[]).unwrap(), Outer { name: "tiny".into(), inner });
}

#[test]
fn errors_name_the_key_the_expected_type_and_the_line() {
    check_error(
        "name: a\ninner:\n  widht: 32\n",
        &[],
        &["inner", "widht", "expected one of `width`", "line 3"],
    );
    check_error("name: a\ninner:\n  width: wide\n", &[], &["inner.width", "expected i64", "line 3"]);
    check_error("name: a\n", &[], &["missing field `inner`"]);
    check_error("name: a\ninner: {width: 1}\nmore: 2\n", &[], &["more", "line 3"]);
    check_error("name: [a\n", &[], &["line"]);
}

#[test]
fn overrides_are_yaml() {
    let changed =
        parse(TEXT, &["inner.width=64", "inner.levels=[4]", "inner.rate=1e-4", "name=other"]).unwrap();
    let inner = Inner { width: 64, levels: vec![4], rate: Some(1e-4) };
    assert_eq!(changed, Outer { name: "other".into(), inner });
    assert_eq!(parse(TEXT, &["inner.levels.1=9"]).unwrap().inner.levels, [1, 9]);
    assert_eq!(parse(TEXT, &["name=a=b"]).unwrap().name, "a=b");
    // The last one counts.
    assert_eq!(parse(TEXT, &["inner.width=1", "inner.width=2"]).unwrap().inner.width, 2);
}

#[test]
fn invalid_overrides_are_refused() {
    check_error(TEXT, &["inner.width"], &["override `inner.width`", "expected key.path=value"]);
    check_error(TEXT, &["inner..width=1"], &["expected key.path=value"]);
    check_error(TEXT, &["inner.levels.7=1"], &["expected an index below 2, got 7"]);
    check_error(TEXT, &["inner.levels.x=1"], &["expected an index, got `x`"]);
    check_error(TEXT, &["name.x=1"], &["expected a mapping or list above `x`"]);
    check_error(TEXT, &["inner.widht=1"], &["with overrides inner.widht=1", "widht"]);
}

#[test]
fn a_missing_file_is_named() {
    let error = config::read::<Outer>("no/such.yaml", &[]).unwrap_err();
    assert!(matches!(&error, Error::Io { path, .. } if path.ends_with("such.yaml")), "{error}");
}
