//! The script that starts the program of the tarball.

use std::fmt::Write as _;
use std::fs;
use std::path::Path;

use anyhow::Result;

use super::libraries::LibraryClosure;
use crate::libtorch::VERSION;

/// Returns the script for the libraries in `lib`.
///
/// # Errors
/// When a library cannot be read.
pub(crate) fn script(closure: &LibraryClosure, lib: &Path) -> Result<String> {
    let mut sizes = String::new();
    for name in closure.libraries.keys() {
        let _ = writeln!(sizes, "{name} {}", fs::metadata(lib.join(name))?.len());
    }
    let names: Vec<&str> = closure.libraries.keys().map(String::as_str).collect();
    let script = include_str!("launcher.sh")
        .replace("@SIZES@", sizes.trim_end())
        .replace("@LIBRARIES@", &names.join(" "))
        .replace("@VERSION@", VERSION)
        .replace("@GLIBC@", &closure.glibc.to_string())
        .replace("@LIBSTDCXX@", &closure.libstdcxx.to_string());
    Ok(script)
}
