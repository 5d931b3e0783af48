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
    check_error(TEXT, &["inner.widht=1"], &["override `inner.widht=1`: inner: unknown field `widht`"]);
    check_error(TEXT, &["inner.width=wide"], &["override `inner.width=wide`: inner.width: ", "expected i64"]);
}

#[test]
fn a_missing_file_is_named() {
    let error = config::read::<Outer>("no/such.yaml", &[]).unwrap_err();
    assert!(matches!(&error, Error::Io { path, .. } if path.ends_with("such.yaml")), "{error}");
}

#[test]
fn lines_of_errors_are_those_of_the_file_with_overrides_too() {
    let text = "# a comment\nname: a\n\ninner:\n  levels: [1]\n  width: wide\n";
    check_error(text, &["name=b"], &["inner.width: ", "expected i64", "at line 6 column 10"]);
    check_error(
        "name: a\n\ninner:\n  widht: 32\n",
        &["name=b"],
        &["inner: unknown field `widht`", "at line 4"],
    );
}

#[test]
fn merge_keys_are_resolved() {
    #[derive(Debug, Deserialize)]
    struct Anchored {
        inner: Inner,
    }
    let text = "base: &base {width: 1, levels: [3]}\nmore: &more {<<: *base, rate: 0.5}\n\
        name: a\ninner: {<<: [*more, *base], width: 2}\n";
    let inner = config::parse::<Anchored>(text, "merge.yaml", &[]).unwrap().inner;
    assert_eq!(inner, Inner { width: 2, levels: vec![3], rate: Some(0.5) });
    check_error("name: a\ninner: {<<: 3}\n", &[], &["merge key `<<`: expected a mapping", "got 3"]);
    check_error("x: &x 1\ninner: {<<: [*x]}\n", &[], &["expected a mapping", "got 1"]);
}

#[test]
fn tags_are_refused() {
    let text = "name: a\ninner: {width: 1}\n";
    check_error(text, &["name=!b c"], &["override `name=!b c`: expected YAML without tags, got `!b`"]);
    // Found by fuzzing: such a tree cannot be written.
    check_error("! a: b\n", &["name=a"], &["expected YAML without tags, got "]);
}

#[test]
fn keys_that_omegaconf_does_not_have_are_refused() {
    for (text, got) in [
        ("? a: 1\n: 2\n", "a mapping"), // found by a fuzzer: could not be written again
        ("? [a]\n: 2\n", "a list"),
        ("deep: [{~: 2}]\n", "null"),
    ] {
        check_error(text, &["name=a"], &[&format!("expected a key of text, got {got}")]);
    }
}

#[test]
fn references_are_resolved() {
    let text = "name: run-${inner.width}-${.inner.levels[1]}\ninner: {width: \"${inner.levels.0}\", levels: [4, 5]}\n";
    let resolved = parse(text, &["inner.levels=[7, 8]"]).unwrap();
    assert_eq!((resolved.name.as_str(), resolved.inner.width), ("run-7-8", 7));
    let copied = parse("name: '\\${x}'\ninner: {width: 1, levels: '${..inner.more}', more: [1]}\n", &[]);
    assert!(copied.unwrap_err().to_string().contains("unknown field `more`"));
    for (name, parts) in [
        ("${inner.depth}", "name: ${inner.depth}: expected a key of this config, got none"),
        ("${name}", "expected another value, got a reference to itself"),
        ("${oc.env:HOME}", "expected the path of a key, got a resolver"),
        ("${inner", "expected a closing brace"),
        ("a${inner}", "expected a scalar within a text"),
        ("${...x}", "expected a key of this config"),
    ] {
        check_error(&format!("name: '{name}'\ninner: {{width: 1}}\n"), &[], &[parts]);
    }
    let circle = "name: ${inner.width}\ninner: {width: '${name}'}\n";
    check_error(circle, &[], &["a reference to itself"]);
}

#[test]
fn later_files_are_merged_into_the_first() {
    let folder = tempfile::tempdir().unwrap();
    let more = folder.path().join("more.yaml");
    std::fs::write(&more, "inner: {width: 64, rate: 2}\n").unwrap();
    let more = more.to_str().unwrap();
    let merged = parse(TEXT, &[more, "inner.rate=3"]).unwrap();
    assert_eq!(merged.inner, Inner { width: 64, levels: vec![1, 2], rate: Some(3.) });
    check_error(TEXT, &["more"], &["override `more`: expected key.path=value or a .yaml file"]);
    assert!(matches!(parse(TEXT, &["none.yaml"]), Err(Error::Io { .. })));
}

#[test]
fn small_files_take_little_memory_and_time() {
    let start = std::time::Instant::now();
    check_error(&"[".repeat(200_000), &[], &["expected at most 128 nested brackets"]);
    check_error(&"- ".repeat(1000), &[], &["expected at most 128 nested lists in a line"]);
    let scalar = format!("a: &a {}\n", "x".repeat(100_000));
    let aliases = (0..3000).fold(String::new(), |text, index| text + &format!("k{index}: *a\n"));
    check_error(&(scalar + &aliases), &["name=x"], &["expected fewer aliases", "got 3000 in"]);
    let doubling = (1..60).fold(String::new(), |text, index| {
        text + &format!("a{index}: '${{a{}}}${{a{}}}'\n", index - 1, index - 1)
    });
    check_error(&format!("a0: xxxxxxxx\n{doubling}"), &[], &["expected at most"]);
    assert!(start.elapsed().as_secs() < 5);
    let folder = tempfile::tempdir().unwrap();
    let long = folder.path().join("long.yaml");
    std::fs::write(&long, "# ".repeat(1 << 20)).unwrap();
    let error = config::read::<Outer>(&long, &[]).unwrap_err().to_string();
    assert!(error.contains("expected a config of at most 1048576 bytes, got 2097152"), "{error}");
}
