//! The manifest of resources: names, URLs, licenses and hashes.

use std::path::Path;

use ldm_core::{Error, Result};
use serde::Deserialize;

use crate::RemoteArchive;

/// A manifest of resources.
#[derive(Debug)]
pub struct Manifest {
    /// The resources, in the order of the file.
    pub resources: Vec<Resource>,
}

/// Files that are used together.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Resource {
    /// Its name, as in `ldm weights get NAME`.
    pub name: String,
    /// Its purpose.
    #[serde(rename = "for")]
    pub purpose: String,
    /// Its files.
    pub files: Vec<RemoteFile>,
}

/// A file: its URL, license, size and hash.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RemoteFile {
    /// Its name in the folder of the resource.
    pub name: String,
    /// Its URL.
    pub url: String,
    /// An SPDX identifier.
    pub license: String,
    /// Size in bytes.
    pub size: u64,
    /// 64 lower-case hexadecimal digits.
    pub sha256: String,
    /// The archive at the URL that holds the file; a mirror and copies have the file itself.
    pub archive: Option<RemoteArchive>,
}

const BUILT_IN: &str = include_str!("manifest.yaml");

impl Manifest {
    /// Reads the built-in manifest, or the one in `file`.
    ///
    /// # Errors
    /// When the file cannot be read, or a name or hash is malformed.
    pub fn open(file: Option<&Path>) -> Result<Self> {
        let resources: Vec<Resource> = match file {
            Some(file) => ldm_core::config::read(file, &[])?,
            None => ldm_core::config::parse(BUILT_IN, "the built-in list", &[])?,
        };
        let shown = file.map_or_else(|| "the built-in list".into(), |file| file.display().to_string());
        resources.iter().try_for_each(|resource| resource.check(&shown))?;
        Ok(Self { resources })
    }

    /// Returns the names of the resources.
    pub fn names(&self) -> Vec<&str> {
        self.resources.iter().map(|resource| resource.name.as_str()).collect()
    }

    /// Returns the resource called `name`.
    pub fn find(&self, name: &str) -> Option<&Resource> {
        self.resources.iter().find(|resource| resource.name == name)
    }
}

impl Resource {
    /// Returns its size in bytes.
    pub fn size(&self) -> u64 {
        self.files.iter().map(|file| file.size).sum()
    }

    /// Returns its licenses, each once.
    pub fn licenses(&self) -> String {
        let mut licenses: Vec<&str> = self.files.iter().map(|file| file.license.as_str()).collect();
        licenses.dedup();
        licenses.join(", ")
    }

    fn check(&self, list: &str) -> Result<()> {
        let names = self.files.iter().map(|file| &file.name);
        for name in names.chain([&self.name]) {
            // Names become paths.
            let plain = |c: char| c.is_ascii_alphanumeric() || "-_.".contains(c);
            if !name.chars().all(plain) || name.starts_with('.') || name.is_empty() {
                let expected = "expected a name of letters, digits, `-`, `_` and `.`, without a leading `.`";
                return Err(Error::config(list, format!("name: {expected}, got `{name}`")));
            }
        }
        for file in &self.files {
            let hex = |c: char| c.is_ascii_digit() || ('a'..='f').contains(&c);
            let hashes = file.archive.iter().map(|archive| &archive.sha256).chain([&file.sha256]);
            for hash in hashes {
                if hash.len() != 64 || !hash.chars().all(hex) {
                    let expected = "expected 64 lower-case hexadecimal digits";
                    return Err(Error::config(
                        list,
                        format!("{}: sha256: {expected}, got {hash}", file.name),
                    ));
                }
            }
        }
        Ok(())
    }
}

/// Formats a size: 553433881 → 553.4 MB.
pub fn megabytes(bytes: u64) -> String {
    if bytes < 100_000 {
        format!("{:.1} kB", bytes as f64 / 1e3)
    } else {
        format!("{:.1} MB", bytes as f64 / 1e6)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn built_in_list_is_valid() {
        let manifest = Manifest::open(None).unwrap();
        assert_eq!(
            manifest.names(),
            ["bert-tokenizer", "clip-tokenizer", "lpips-vgg16", "fid-inception", "efficientnet-lite0"]
        );
        for file in manifest.resources.iter().flat_map(|resource| &resource.files) {
            assert!(file.url.starts_with("https://") && file.size > 0, "{file:?}");
            // PyTorch's file names end in the first digits of the hash.
            if let Some((_, digits)) = file.name.trim_end_matches(".pth").rsplit_once('-') {
                assert!(file.sha256.starts_with(digits), "{file:?}");
            }
        }
        let lpips = manifest.find("lpips-vgg16").unwrap();
        assert_eq!((lpips.size(), lpips.licenses().as_str()), (553_441_170, "BSD-2-Clause, BSD-3-Clause"));
    }

    #[test]
    fn names_are_not_paths() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("list.yaml");
        for name in ["../x", "a/b", ".lock", ""] {
            let text = format!("- {{name: \"{name}\", for: tests, files: []}}");
            std::fs::write(&path, text).unwrap();
            let error = Manifest::open(Some(&path)).unwrap_err().to_string();
            assert!(error.contains("expected a name of letters"), "{error}");
        }
    }
}
