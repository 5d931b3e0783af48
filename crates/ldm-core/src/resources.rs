//! Additional files of models and metrics, installed by `ldm weights get`. This module never downloads.

use std::env;
use std::ffi::OsString;
use std::io;
use std::path::{Path, PathBuf};

use crate::{Error, Result};

/// Returns the folder of these files: `$LDM_WEIGHTS`, else `$XDG_CACHE_HOME/ldm/weights`, else `~/.cache/ldm/weights`. It
/// need not exist.
///
/// # Errors
/// [`Error::Invalid`] when no variable names a folder; those of the system must be absolute paths.
pub fn cache_dir() -> Result<PathBuf> {
    cache_dir_of(|name| env::var_os(name))
}

fn cache_dir_of(variable: impl Fn(&str) -> Option<OsString>) -> Result<PathBuf> {
    let set = |name: &str| variable(name).filter(|value| !value.is_empty()).map(PathBuf::from);
    if let Some(folder) = set("LDM_WEIGHTS") {
        return Ok(folder);
    }
    let absolute = |name: &str| set(name).filter(|path| path.is_absolute());
    absolute("XDG_CACHE_HOME")
        .or_else(|| Some(absolute("HOME")?.join(".cache")))
        .map(|caches| caches.join("ldm/weights"))
        .ok_or_else(|| {
            Error::invalid(
                "HOME: expected a folder for weights, got none; try setting LDM_WEIGHTS or XDG_CACHE_HOME",
            )
        })
}

/// Finds the file `file` of the resource `name`, if it is installed: `find("bert-tokenizer", "vocab.txt")`.
pub fn find(name: &str, file: &str) -> Option<PathBuf> {
    cache_dir().ok().and_then(|folder| find_in(&folder, name, file))
}

fn find_in(folder: &Path, name: &str, file: &str) -> Option<PathBuf> {
    Some(folder.join(name).join(file)).filter(|path| path.is_file())
}

/// [`find`] for a required file.
///
/// # Errors
/// [`Error::Io`] of kind `NotFound`, with the path and the command that installs it; [`Error::Invalid`] as
/// [`cache_dir`].
pub fn need(name: &str, file: &str) -> Result<PathBuf> {
    need_in(&cache_dir()?, name, file)
}

fn need_in(folder: &Path, name: &str, file: &str) -> Result<PathBuf> {
    find_in(folder, name, file).ok_or_else(|| {
        let how = format!(
            "not installed; try `ldm weights get {name}`, or `ldm weights get {name} --from FILE` with a local copy"
        );
        Error::Io {
            path: folder.join(name).join(file),
            source: io::Error::new(io::ErrorKind::NotFound, how),
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(variables: &[(&str, &str)], expected: Option<&str>) {
        let variable = |name: &str| {
            variables.iter().find(|(each, _)| *each == name).map(|(_, value)| OsString::from(value))
        };
        assert_eq!(cache_dir_of(variable).ok(), expected.map(PathBuf::from));
    }

    #[test]
    fn the_folder_follows_the_environment() {
        check(&[("HOME", "/h")], Some("/h/.cache/ldm/weights"));
        check(&[("HOME", "/h"), ("XDG_CACHE_HOME", "/c")], Some("/c/ldm/weights"));
        check(&[("HOME", "/h"), ("XDG_CACHE_HOME", "c")], Some("/h/.cache/ldm/weights"));
        check(&[("XDG_CACHE_HOME", "/c"), ("LDM_WEIGHTS", "/w")], Some("/w"));
        check(&[("LDM_WEIGHTS", "mine")], Some("mine"));
        check(&[("HOME", "/h"), ("LDM_WEIGHTS", "")], Some("/h/.cache/ldm/weights"));
        check(&[("HOME", "h")], None);
        let error = cache_dir_of(|_| None).unwrap_err().to_string();
        assert!(error.starts_with("HOME: expected a folder"), "{error}");
    }

    #[test]
    fn a_missing_file_names_the_command() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("bert-tokenizer/vocab.txt");
        let error = need_in(folder.path(), "bert-tokenizer", "vocab.txt").unwrap_err().to_string();
        let expected = format!("{}: not installed; try `ldm weights get bert-tokenizer`", path.display());
        assert!(error.starts_with(&expected), "{error}");
        std::fs::create_dir_all(&path).unwrap();
        assert_eq!(find_in(folder.path(), "bert-tokenizer", "vocab.txt"), None, "a folder is not a file");
        std::fs::remove_dir(&path).unwrap();
        std::fs::write(&path, "[PAD]").unwrap();
        assert_eq!(need_in(folder.path(), "bert-tokenizer", "vocab.txt").unwrap(), path);
    }
}
