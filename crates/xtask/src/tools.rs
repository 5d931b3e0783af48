//! Checks for the programs that setup and the build need, before any download.

use std::env;
use std::ffi::OsStr;
use std::path::Path;
use std::process::{Command, Stdio};

use anyhow::{Result, ensure};

/// Checks that this machine can install libtorch and build.
pub(crate) fn check() -> Result<()> {
    ensure!(
        cfg!(target_os = "linux"),
        "setup: expected Linux; try installing libtorch {} yourself and setting LIBTORCH to its folder",
        crate::libtorch::VERSION
    );
    ensure!(
        works("python3", &["-c", ""]),
        "python3: expected Python 3 to install libtorch, got none; try `sudo apt install python3 python3-pip` (Debian, \
         Ubuntu), or set LIBTORCH to a libtorch {}",
        crate::libtorch::VERSION
    );
    ensure!(
        works("python3", &["-I", "-m", "pip", "--version"]),
        "python3: expected pip to install libtorch, got none; try `sudo apt install python3-pip` (Debian, Ubuntu) or \
         `python3 -m ensurepip`"
    );
    ensure!(
        works(c_compiler(), &["--version"]) && works(cxx_compiler(), &["--version"]),
        "cc, c++: expected a C and a C++ compiler, got none; try `sudo apt install build-essential` (Debian, Ubuntu), or \
         set CC and CXX"
    );
    Ok(())
}

pub(crate) fn c_compiler() -> String {
    compiler("CC", "cc")
}

fn cxx_compiler() -> String {
    compiler("CXX", "c++")
}

fn compiler(variable: &str, default: &str) -> String {
    env::var(variable).ok().filter(|name| !name.is_empty()).unwrap_or_else(|| default.to_owned())
}

/// Returns true if a program starts and succeeds.
pub(crate) fn works(program: impl AsRef<OsStr>, args: &[&str]) -> bool {
    Command::new(program)
        .args(args)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .status()
        .is_ok_and(|status| status.success())
}

/// Returns the free bytes on the disk of the folder, from `df`; `None` if it fails.
pub(crate) fn free_bytes(folder: &Path) -> Option<u64> {
    let output = Command::new("df").args(["--output=avail", "-B1"]).arg(folder).output().ok()?;
    String::from_utf8(output.stdout).ok()?.lines().nth(1)?.trim().parse().ok()
}
