//! Files that a model or a metric needs beside itself: where `ldm weights get` puts them. Nothing here downloads.

use std::env;
use std::ffi::OsString;
use std::io;
use std::path::{Path, PathBuf};

use crate::{Error, Result};

/// The folder of all such files: `$LDM_WEIGHTS`, else `$XDG_CACHE_HOME/ldm/weights`, else `~/.cache/ldm/weights`. It
/// need not exist.
///
/// # Errors
/// [`Error::Invalid`] where no variable says a folder. Those of the system count only as absolute paths.
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
                "there is no home folder to look for weights in: set LDM_WEIGHTS or XDG_CACHE_HOME to a folder",
            )
        })
}

/// Where the file `file` of the resource `name` lies, if it is there: `find("bert-tokenizer", "vocab.txt")`.
pub fn find(name: &str, file: &str) -> Option<PathBuf> {
    cache_dir().ok().and_then(|folder| find_in(&folder, name, file))
}

fn find_in(folder: &Path, name: &str, file: &str) -> Option<PathBuf> {
    Some(folder.join(name).join(file)).filter(|path| path.is_file())
}

/// [`find`] for those who cannot go on without the file.
///
/// # Errors
/// [`Error::Io`] of kind `NotFound`, with the place looked at and the command that fills it; [`Error::Invalid`] as
/// [`cache_dir`].
pub fn need(name: &str, file: &str) -> Result<PathBuf> {
    need_in(&cache_dir()?, name, file)
}

fn need_in(folder: &Path, name: &str, file: &str) -> Result<PathBuf> {
    find_in(folder, name, file).ok_or_else(|| {
        let how = format!(
            "not installed: `ldm weights get {name}` downloads it, and `ldm weights get {name} --from FILE` takes a \
             copy you have"
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
        assert!(error.starts_with("there is no home folder"), "{error}");
    }

    #[test]
    fn a_missing_file_says_how_to_get_it() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("bert-tokenizer/vocab.txt");
        let error = need_in(folder.path(), "bert-tokenizer", "vocab.txt").unwrap_err().to_string();
        let expected =
            format!("{}: not installed: `ldm weights get bert-tokenizer` downloads it", path.display());
        assert!(error.starts_with(&expected), "{error}");
        std::fs::create_dir_all(&path).unwrap();
        assert_eq!(find_in(folder.path(), "bert-tokenizer", "vocab.txt"), None, "a folder is no file");
        std::fs::remove_dir(&path).unwrap();
        std::fs::write(&path, "[PAD]").unwrap();
        assert_eq!(need_in(folder.path(), "bert-tokenizer", "vocab.txt").unwrap(), path);
    }
}
