//! The crates as crates.io and docs.rs take them.

use serde_json::Value;

use crate::tidy::{none, packages, read};

/// Crates that need no libtorch, so that their documentation needs no feature.
const WITHOUT_LIBTORCH: [&str; 2] = ["ldm-kernels", "xtask"];

fn published() -> Vec<Value> {
    packages()
        .into_iter()
        .filter(|package| package["publish"].as_array().is_none_or(|to| !to.is_empty()))
        .collect()
}

fn features(package: &Value) -> Vec<&String> {
    package["features"].as_object().unwrap().keys().collect()
}

/// All other checks run on the toolchain of `rust-toolchain.toml`, so that they test this version.
#[test]
fn the_toolchain_is_the_oldest_supported_one() {
    let toolchain = read("rust-toolchain.toml");
    let channel =
        toolchain.lines().find_map(|line| line.strip_prefix("channel = ")).unwrap().trim_matches('"');
    let older = published().into_iter().filter_map(|package| {
        let version = package["rust_version"].as_str().unwrap_or_default();
        let same =
            channel == version || channel.strip_prefix(version).is_some_and(|rest| rest.starts_with('.'));
        (!same).then(|| format!("{}: {version}, expected that of {channel}", package["name"]))
    });
    none("rust-version is the version of rust-toolchain.toml", older.collect());
}

/// docs.rs has no libtorch.
#[test]
fn docs_rs_builds_without_libtorch() {
    let mut violations = Vec::new();
    for package in published() {
        let name = package["name"].as_str().unwrap();
        let library = package["targets"].as_array().unwrap().iter().any(|target| target["kind"][0] == "lib");
        if WITHOUT_LIBTORCH.contains(&name) || !library {
            continue;
        }
        let enabled = package["metadata"]["docs"]["rs"]["features"].as_array().cloned().unwrap_or_default();
        if !enabled.contains(&"doc-only".into()) {
            violations
                .push(format!("{name}: expected doc-only in the features of [package.metadata.docs.rs]"));
        }
        if !features(&package).iter().any(|feature| *feature == "doc-only") {
            violations.push(format!("{name}: expected a feature doc-only"));
        }
    }
    none("docs.rs builds a crate with the feature doc-only", violations);
}

#[test]
fn features_are_documented() {
    let mut violations = Vec::new();
    for package in published() {
        let name = package["name"].as_str().unwrap();
        let page = read(&format!("crates/{name}/README.md"));
        for feature in features(&package).into_iter().filter(|feature| *feature != "default") {
            if !page.contains(&format!("`{feature}`")) {
                violations.push(format!("crates/{name}/README.md: expected the feature `{feature}`"));
            }
        }
    }
    none("the README of a crate names its features", violations);
}
