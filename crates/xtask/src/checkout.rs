//! The checkout, and the user's `LIBTORCH` as opposed to the one set by cargo.

use std::env;
use std::ffi::OsString;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

/// The workspace's root folder.
#[derive(Debug)]
pub(crate) struct Checkout {
    root: PathBuf,
}

impl Checkout {
    /// Finds the checkout whose `crates/xtask` cargo runs; without cargo, the one of the build.
    pub(crate) fn find() -> Result<Self> {
        let package = env::var_os("CARGO_MANIFEST_DIR")
            .map_or_else(|| PathBuf::from(env!("CARGO_MANIFEST_DIR")), PathBuf::from);
        let root = package.ancestors().nth(2).context("xtask is outside a checkout")?;
        Ok(Self { root: root.to_path_buf() })
    }

    pub(crate) fn root(&self) -> &Path {
        &self.root
    }

    /// Returns cargo's target folder.
    pub(crate) fn target(&self) -> Result<PathBuf> {
        let target = env::var_os("CARGO_TARGET_DIR").map_or_else(|| self.root.join("target"), PathBuf::from);
        std::path::absolute(target).context("the target folder")
    }

    /// Returns `.libtorch`, which setup creates and the build uses.
    pub(crate) fn link(&self) -> PathBuf {
        self.root.join(".libtorch")
    }

    /// Returns the libtorch that a plain `cargo build` uses.
    pub(crate) fn libtorch(&self) -> PathBuf {
        self.link().join("torch")
    }

    /// Returns `LIBTORCH` if the user set it. Cargo also sets it, from `.cargo/config.toml`, to `.libtorch/torch`.
    pub(crate) fn users_libtorch(&self) -> Option<PathBuf> {
        let value = PathBuf::from(env::var_os("LIBTORCH")?);
        (!value.as_os_str().is_empty() && !self.is_own(&value)).then_some(value)
    }

    fn is_own(&self, libtorch: &Path) -> bool {
        let same = |other: &Path| match (other.canonicalize(), self.root.canonicalize()) {
            (Ok(a), Ok(b)) => a == b,
            _ => false,
        };
        libtorch.ends_with(".libtorch/torch") && libtorch.ancestors().nth(2).is_some_and(same)
    }
}

/// Returns the cargo that runs this program.
pub(crate) fn cargo() -> OsString {
    env::var_os("CARGO").unwrap_or_else(|| "cargo".into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_own_libtorch_is_recognized_through_links() {
        let folder = tempfile::tempdir().unwrap();
        let root = folder.path().join("real");
        std::fs::create_dir(&root).unwrap();
        std::os::unix::fs::symlink(&root, folder.path().join("alias")).unwrap();
        let checkout = Checkout { root };
        assert!(checkout.is_own(&checkout.libtorch()));
        assert!(checkout.is_own(&folder.path().join("alias/.libtorch/torch")));
        assert!(!checkout.is_own(&folder.path().join(".libtorch/torch")));
        assert!(!checkout.is_own(Path::new("/usr/lib/libtorch")));
    }
}
