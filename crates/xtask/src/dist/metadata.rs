//! The packages of which the program is made, from `cargo metadata`.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, ensure};
use serde_json::Value;

use crate::checkout;

/// A package that is compiled into the program, or that runs while it is compiled.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct SourcePackage {
    pub(crate) name: String,
    pub(crate) version: String,
    /// An SPDX expression.
    pub(crate) license: Option<String>,
    /// False for the crates of this workspace.
    pub(crate) from_registry: bool,
    pub(crate) folder: PathBuf,
}

/// The packages of `ldm-cli`, itself among them, sorted by name and version.
///
/// # Errors
/// When cargo fails.
pub(crate) fn packages(root: &Path) -> Result<Vec<SourcePackage>> {
    let output = Command::new(checkout::cargo())
        .args([
            "metadata",
            "--format-version",
            "1",
            "--locked",
            "--filter-platform",
            "x86_64-unknown-linux-gnu",
        ])
        .current_dir(root)
        .output()
        .context("cargo does not start")?;
    ensure!(output.status.success(), "cargo metadata: {}", String::from_utf8_lossy(&output.stderr));
    let metadata: Value = serde_json::from_slice(&output.stdout).context("cargo metadata")?;
    Ok(reachable(&metadata, "ldm-cli"))
}

/// Returns the version of the program.
///
/// # Errors
/// When it is not among the packages.
pub(crate) fn version(packages: &[SourcePackage]) -> Result<&str> {
    let program = packages.iter().find(|package| package.name == "ldm-cli");
    program.map(|package| package.version.as_str()).context("cargo metadata: expected ldm-cli, got none")
}

/// Returns the packages that a package needs outside its tests.
fn reachable(metadata: &Value, name: &str) -> Vec<SourcePackage> {
    let list = |value: &Value| value.as_array().cloned().unwrap_or_default();
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let packages: BTreeMap<String, Value> =
        list(&metadata["packages"]).into_iter().map(|package| (text(&package["id"]), package)).collect();
    let nodes: BTreeMap<String, Value> =
        list(&metadata["resolve"]["nodes"]).into_iter().map(|node| (text(&node["id"]), node)).collect();
    let first = packages.iter().find(|(_, package)| package["name"] == name).map(|(id, _)| id.clone());
    let mut open: Vec<String> = first.into_iter().collect();
    let mut seen = BTreeSet::new();
    while let Some(id) = open.pop() {
        if !seen.insert(id.clone()) {
            continue;
        }
        let needed =
            |dependency: &Value| list(&dependency["dep_kinds"]).iter().any(|kind| kind["kind"] != "dev");
        let dependencies = list(&nodes.get(&id).unwrap_or(&Value::Null)["deps"]);
        open.extend(dependencies.iter().filter(|each| needed(each)).map(|each| text(&each["pkg"])));
    }
    let mut found: Vec<SourcePackage> = seen
        .iter()
        .filter_map(|id| packages.get(id))
        .map(|package| SourcePackage {
            name: text(&package["name"]),
            version: text(&package["version"]),
            license: package["license"].as_str().map(str::to_owned),
            from_registry: !package["source"].is_null(),
            folder: Path::new(&text(&package["manifest_path"]))
                .parent()
                .unwrap_or(Path::new(""))
                .to_path_buf(),
        })
        .collect();
    found.sort();
    found
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn packages_of_tests_are_left_out() {
        let package = |name: &str| {
            json!({"id": format!("id {name}"), "name": name, "version": "1.0.0", "license": "MIT", "source": null,
                   "manifest_path": format!("/{name}/Cargo.toml")})
        };
        let edge =
            |name: &str, kind: Value| json!({"pkg": format!("id {name}"), "dep_kinds": [{"kind": kind}]});
        let packages = ["a", "b", "c", "d", "e"].map(package);
        let metadata = json!({
            "packages": packages,
            "resolve": {"nodes": [
                {"id": "id a", "deps": [edge("b", Value::Null), edge("c", json!("dev")), edge("d", json!("build"))]},
                {"id": "id b", "deps": []},
                {"id": "id c", "deps": []},
                {"id": "id d", "deps": [edge("a", Value::Null)]},
            ]},
        });
        let names: Vec<String> = reachable(&metadata, "a").into_iter().map(|package| package.name).collect();
        assert_eq!(names, ["a", "b", "d"]);
    }
}
