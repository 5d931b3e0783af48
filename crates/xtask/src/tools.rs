//! The programs that set-up and the build need, looked for before anything is downloaded.

use std::env;
use std::path::Path;
use std::process::{Command, Stdio};

use anyhow::{Result, ensure};

/// Refuses a machine that cannot install or build, in one sentence.
pub(crate) fn check() -> Result<()> {
    ensure!(
        cfg!(target_os = "linux"),
        "set-up installs libtorch on Linux only: install libtorch {} yourself and set LIBTORCH to its folder",
        crate::libtorch::VERSION
    );
    ensure!(
        works("python3", &["-c", ""]),
        "there is no python3, which set-up needs to fetch libtorch: install Python 3 (Debian, Ubuntu: `sudo apt \
         install python3 python3-pip`) or set LIBTORCH to a libtorch {}",
        crate::libtorch::VERSION
    );
    ensure!(
        works("python3", &["-m", "pip", "--version"]),
        "python3 has no pip, which set-up needs to fetch libtorch: install it (Debian, Ubuntu: `sudo apt install \
         python3-pip`; elsewhere: `python3 -m ensurepip`)"
    );
    ensure!(
        works(&c_compiler(), &["--version"]) && works(&cxx_compiler(), &["--version"]),
        "there is no C and C++ compiler, which the build needs: install them (Debian, Ubuntu: `sudo apt install \
         build-essential`) or set CC and CXX"
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

fn works(program: &str, args: &[&str]) -> bool {
    Command::new(program)
        .args(args)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .status()
        .is_ok_and(|status| status.success())
}

/// Free bytes on the disk that holds the folder, as `df` says; `None` where it does not.
pub(crate) fn free_bytes(folder: &Path) -> Option<u64> {
    let output = Command::new("df").args(["--output=avail", "-B1"]).arg(folder).output().ok()?;
    String::from_utf8(output.stdout).ok()?.lines().nth(1)?.trim().parse().ok()
}
