//! Packages of the program for other machines: `cargo xtask dist`.
//!
//! `docs/develop/distribution.md` has the layout, the sizes and the reasons.

mod build;

use std::ffi::OsString;

use anyhow::Result;

use crate::checkout::Checkout;
use crate::setup;

/// A package to make, or to check.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum DistCommand {
    /// The archive with libtorch for the CPU.
    Tarball,
}

impl DistCommand {
    pub(crate) fn parse(args: &[OsString]) -> Option<Self> {
        match args {
            [flag] if flag == "--tarball" => Some(Self::Tarball),
            _ => None,
        }
    }
}

/// Makes or checks a package.
///
/// # Errors
/// When the build fails, and when a file is missing or cannot be written.
pub(crate) fn run(checkout: &Checkout, command: &DistCommand) -> Result<()> {
    setup::ensure(checkout)?;
    match command {
        DistCommand::Tarball => {
            let program = build::program(checkout)?;
            println!("{}", program.display());
            Ok(())
        }
    }
}
