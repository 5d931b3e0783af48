//! Packages of the program for other machines: `cargo xtask dist`.
//!
//! `docs/develop/distribution.md` has the layout, the sizes and the reasons.

mod archive;
mod build;
mod check;
mod check_wheel;
mod elf;
mod launcher;
mod libraries;
mod licenses;
mod manylinux;
mod metadata;
mod sbom;
mod tarball;
mod wheel;

use std::ffi::OsString;
use std::fmt::Write as _;
use std::fs::{self, File};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use sha2::{Digest, Sha256};

use crate::checkout::Checkout;
use crate::setup;

/// A package to make, or to check.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum DistCommand {
    /// The archive with libtorch for the CPU.
    Tarball,
    /// The archive in a root folder, in which the shell's tools are all there is.
    Check(PathBuf),
    /// The Python wheel.
    Wheel,
    /// The wheel in a Python environment.
    CheckWheel,
}

impl DistCommand {
    pub(crate) fn parse(args: &[OsString]) -> Option<Self> {
        match args {
            [flag] if flag == "--tarball" => Some(Self::Tarball),
            [flag, root] if flag == "--check" => Some(Self::Check(root.into())),
            [flag] if flag == "--wheel" => Some(Self::Wheel),
            [flag] if flag == "--check-wheel" => Some(Self::CheckWheel),
            _ => None,
        }
    }
}

/// Makes or checks a package.
///
/// # Errors
/// When the build fails, and when a file is missing or cannot be written.
pub(crate) fn run(checkout: &Checkout, command: &DistCommand) -> Result<()> {
    match command {
        DistCommand::Tarball => {
            setup::ensure(checkout)?;
            tarball::make(checkout)?;
            let packages = packages_folder(checkout)?;
            let script = checkout.root().join("docs/install.sh");
            fs::copy(&script, packages.join("install.sh")).with_context(|| script.display().to_string())?;
            write_checksums(&packages)
        }
        DistCommand::Check(root) => check::run(checkout, root),
        DistCommand::Wheel => {
            setup::ensure(checkout)?;
            println!("{}", wheel::make(checkout)?.display());
            write_checksums(&packages_folder(checkout)?)
        }
        DistCommand::CheckWheel => check_wheel::run(checkout),
    }
}

/// Returns the folder of the finished packages, which exists.
pub(crate) fn packages_folder(checkout: &Checkout) -> Result<PathBuf> {
    let folder = checkout.target()?.join("packages");
    fs::create_dir_all(&folder).with_context(|| folder.display().to_string())?;
    Ok(folder)
}

/// Writes `SHA256SUMS` of the packages in a folder, as `sha256sum -c` reads it.
pub(crate) fn write_checksums(folder: &Path) -> Result<()> {
    let mut names: Vec<String> = fs::read_dir(folder)?
        .flatten()
        .filter(|entry| entry.path().is_file() && entry.file_name() != "SHA256SUMS")
        .map(|entry| entry.file_name().to_string_lossy().into_owned())
        .collect();
    names.sort();
    let mut sums = String::new();
    for name in names {
        let _ = writeln!(sums, "{}  {name}", sha256(&folder.join(&name))?);
    }
    fs::write(folder.join("SHA256SUMS"), sums).context("SHA256SUMS")
}

/// Returns the sha256 of a file in hexadecimal digits.
pub(crate) fn sha256(path: &Path) -> Result<String> {
    let mut hash = Sha256::new();
    let mut file = File::open(path).with_context(|| path.display().to_string())?;
    std::io::copy(&mut file, &mut hash).with_context(|| path.display().to_string())?;
    Ok(hash.finalize().iter().fold(String::new(), |mut text, byte| {
        let _ = write!(text, "{byte:02x}");
        text
    }))
}
