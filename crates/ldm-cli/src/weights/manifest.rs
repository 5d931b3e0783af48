//! What there is: names, origins, licenses and hashes.

use std::path::Path;

use anyhow::{Context, ensure};
use serde::Deserialize;

/// The list, in its order.
#[derive(Debug)]
pub(crate) struct Manifest {
    pub(crate) resources: Vec<Resource>,
}

/// Files that are needed together.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Resource {
    pub(crate) name: String,
    /// What needs it.
    #[serde(rename = "for")]
    pub(crate) purpose: String,
    pub(crate) files: Vec<RemoteFile>,
}

/// A file, where it comes from, and what it must be.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct RemoteFile {
    pub(crate) name: String,
    pub(crate) url: String,
    /// An SPDX identifier.
    pub(crate) license: String,
    /// In bytes.
    pub(crate) size: u64,
    /// 64 lower-case hexadecimal digits.
    pub(crate) sha256: String,
}

const BUILT_IN: &str = include_str!("manifest.yaml");

impl Manifest {
    /// The built-in list, or the one in `file`.
    pub(crate) fn open(file: Option<&Path>) -> anyhow::Result<Self> {
        let resources: Vec<Resource> = match file {
            Some(file) => ldm_core::config::read(file, &[])?,
            None => ldm_core::config::parse(BUILT_IN, "the built-in list", &[])?,
        };
        let shown = file.map_or_else(|| "the built-in list".into(), |file| file.display().to_string());
        resources.iter().try_for_each(Resource::check).context(shown)?;
        Ok(Self { resources })
    }

    pub(crate) fn names(&self) -> Vec<&str> {
        self.resources.iter().map(|resource| resource.name.as_str()).collect()
    }

    pub(crate) fn find(&self, name: &str) -> Option<&Resource> {
        self.resources.iter().find(|resource| resource.name == name)
    }
}

impl Resource {
    /// In bytes.
    pub(crate) fn size(&self) -> u64 {
        self.files.iter().map(|file| file.size).sum()
    }

    /// Each license once.
    pub(crate) fn licenses(&self) -> String {
        let mut licenses: Vec<&str> = self.files.iter().map(|file| file.license.as_str()).collect();
        licenses.dedup();
        licenses.join(", ")
    }

    fn check(&self) -> anyhow::Result<()> {
        let names = self.files.iter().map(|file| &file.name);
        for name in names.chain([&self.name]) {
            // They become paths.
            let plain = |c: char| c.is_ascii_alphanumeric() || "-_.".contains(c);
            ensure!(
                name.chars().all(plain) && !name.starts_with('.') && !name.is_empty(),
                "`{name}` is no name: expected letters, digits, `-`, `_` and `.`, and no `.` in front"
            );
        }
        for file in &self.files {
            let hex = |c: char| c.is_ascii_digit() || ('a'..='f').contains(&c);
            ensure!(
                file.sha256.len() == 64 && file.sha256.chars().all(hex),
                "`{}`: expected a sha256 of 64 lower-case hexadecimal digits, got: {}",
                file.name,
                file.sha256
            );
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_built_in_list_is_sound() {
        let manifest = Manifest::open(None).unwrap();
        assert_eq!(manifest.names(), ["bert-tokenizer", "clip-tokenizer", "lpips-vgg16", "fid-inception"]);
        for file in manifest.resources.iter().flat_map(|resource| &resource.files) {
            assert!(file.url.starts_with("https://") && file.size > 0, "{file:?}");
            // PyTorch's own names end in the first digits of the hash.
            if let Some((_, digits)) = file.name.trim_end_matches(".pth").rsplit_once('-') {
                assert!(file.sha256.starts_with(digits), "{file:?}");
            }
        }
        let lpips = manifest.find("lpips-vgg16").unwrap();
        assert_eq!((lpips.size(), lpips.licenses().as_str()), (553_441_170, "BSD-2-Clause, BSD-3-Clause"));
    }

    #[test]
    fn names_do_not_lead_elsewhere() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("list.yaml");
        for name in ["../x", "a/b", ".lock", ""] {
            let text = format!("- {{name: \"{name}\", for: tests, files: []}}");
            std::fs::write(&path, text).unwrap();
            let error = format!("{:#}", Manifest::open(Some(&path)).unwrap_err());
            assert!(error.contains("is no name"), "{error}");
        }
    }
}
