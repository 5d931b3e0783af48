//! Licenses of all that a package holds.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};

use super::metadata::SourcePackage;

/// Returns the licenses of the crates from the registry, each text once with the crates that have it.
///
/// # Errors
/// When a folder cannot be read.
pub(crate) fn of_crates(packages: &[SourcePackage]) -> Result<String> {
    let mut texts: BTreeMap<String, Vec<String>> = BTreeMap::new();
    let mut list = String::from("Crates compiled into ldm, and the licenses they are under.\n\n");
    for package in packages.iter().filter(|package| package.from_registry) {
        let title = format!("{} {}", package.name, package.version);
        let _ = writeln!(list, "{title}: {}", package.license.as_deref().unwrap_or("see below"));
        for path in files(&package.folder)? {
            let text = String::from_utf8_lossy(&fs::read(&path)?).trim().replace("\r\n", "\n");
            texts.entry(text).or_default().push(title.clone());
        }
    }
    for (text, titles) in &texts {
        let _ = write!(list, "\n{}\n{}\n\n{text}\n", "-".repeat(80), titles.join(", "));
    }
    Ok(list)
}

/// Returns the license files of libtorch and of the libraries installed with it, with the name of the wheel.
///
/// # Errors
/// When there is none.
pub(crate) fn of_libtorch(libtorch: &Path) -> Result<Vec<(String, PathBuf)>> {
    let wheels = libtorch.parent().context("libtorch is in a folder")?;
    let mut found = Vec::new();
    for entry in fs::read_dir(wheels).with_context(|| wheels.display().to_string())?.flatten() {
        let name = entry.file_name().to_string_lossy().into_owned();
        let Some((wheel, _)) = name.strip_suffix(".dist-info").and_then(|name| name.split_once('-')) else {
            continue;
        };
        for path in files(&entry.path().join("licenses"))? {
            found.push((wheel.to_owned(), path));
        }
    }
    found.sort();
    ensure!(
        found.iter().any(|(wheel, _)| wheel == "torch"),
        "{}: expected the license of torch in torch-*.dist-info/licenses, got none; try `cargo xtask setup --cpu` without \
         LIBTORCH",
        wheels.display()
    );
    Ok(found)
}

/// Returns the files of a folder whose names are those of licenses, sorted. None if there is no folder.
fn files(folder: &Path) -> Result<Vec<PathBuf>> {
    if !folder.is_dir() {
        return Ok(Vec::new());
    }
    let is_license = |path: &PathBuf| {
        let name = path.file_name().unwrap_or_default().to_string_lossy().to_lowercase();
        path.is_file()
            && ["license", "licence", "copying", "notice", "unlicense"]
                .iter()
                .any(|start| name.starts_with(start))
    };
    let entries = fs::read_dir(folder).with_context(|| folder.display().to_string())?;
    let mut paths: Vec<PathBuf> = entries.flatten().map(|entry| entry.path()).filter(is_license).collect();
    paths.sort();
    Ok(paths)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_text_is_written_once() {
        let folder = tempfile::tempdir().unwrap();
        let package = |name: &str, license: &str| {
            let folder = folder.path().join(name);
            fs::create_dir(&folder).unwrap();
            fs::write(folder.join("LICENSE-MIT"), license).unwrap();
            fs::write(folder.join("README.md"), "not this").unwrap();
            let (name, version, license) = (name.to_owned(), "1.0.0".to_owned(), Some("MIT".to_owned()));
            SourcePackage { name, version, license, from_registry: true, folder }
        };
        let packages =
            [package("a", "text\r\nof a"), package("b", "text\nof a\n"), package("c", "text of c")];
        let list = of_crates(&packages).unwrap();
        assert_eq!(list.matches("text\nof a").count(), 1, "{list}");
        assert!(list.contains("a 1.0.0, b 1.0.0\n") && list.contains("text of c"), "{list}");
        assert!(!list.contains("not this"), "{list}");
    }

    #[test]
    fn a_libtorch_without_license_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let error = of_libtorch(&folder.path().join("torch")).unwrap_err().to_string();
        assert!(error.contains("expected the license of torch"), "{error}");
    }
}
