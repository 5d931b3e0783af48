//! The list of components of a package, a CycloneDX document.

use serde_json::{Value, json};

use super::metadata::SourcePackage;
use crate::libtorch::VERSION;

/// A library of libtorch: its name and the sha256 of its file.
pub(crate) type LibraryHash = (String, String);

/// Returns a CycloneDX 1.5 document.
pub(crate) fn document(version: &str, packages: &[SourcePackage], libraries: &[LibraryHash]) -> Value {
    let crates = packages.iter().filter(|package| package.name != "ldm-cli").map(component);
    let files: Vec<Value> = libraries
        .iter()
        .map(|(name, sha256)| {
            json!({"type": "file", "name": name, "hashes": [{"alg": "SHA-256", "content": sha256}]})
        })
        .collect();
    let libtorch = json!({
        "type": "library",
        "bom-ref": format!("pkg:pypi/torch@{VERSION}"),
        "name": "torch",
        "version": VERSION,
        "purl": format!("pkg:pypi/torch@{VERSION}"),
        "licenses": [{"license": {"id": "BSD-3-Clause"}}],
        "components": files,
    });
    json!({
        "bomFormat": "CycloneDX",
        "specVersion": "1.5",
        "version": 1,
        "metadata": {"component": {"type": "application", "bom-ref": "ldm", "name": "ldm", "version": version}},
        "components": crates.chain([libtorch]).collect::<Vec<_>>(),
    })
}

fn component(package: &SourcePackage) -> Value {
    let SourcePackage { name, version, .. } = package;
    let purl = format!("pkg:cargo/{name}@{version}");
    let mut component =
        json!({"type": "library", "bom-ref": purl, "name": name, "version": version, "purl": purl});
    if let Some(license) = &package.license {
        // Old crates write a slash for OR.
        component["licenses"] = json!([{"expression": license.replace('/', " OR ")}]);
    }
    component
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn components_have_versions_licenses_and_hashes() {
        let package = |name: &str| SourcePackage {
            name: name.into(),
            version: "1.2.3".into(),
            license: Some("MIT/Apache-2.0".into()),
            from_registry: true,
            folder: "/nowhere".into(),
        };
        let found =
            document("0.1.0", &[package("ldm-cli"), package("png")], &[("libc10.so".into(), "ab".into())]);
        assert_eq!(found["metadata"]["component"]["version"], "0.1.0");
        let components = found["components"].as_array().unwrap();
        assert_eq!(components.len(), 2, "{found:#}");
        assert_eq!(components[0]["purl"], "pkg:cargo/png@1.2.3");
        assert_eq!(components[0]["licenses"][0]["expression"], "MIT OR Apache-2.0");
        assert_eq!(components[1]["components"][0]["hashes"][0]["content"], "ab");
    }
}
