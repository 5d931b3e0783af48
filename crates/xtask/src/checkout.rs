//! The checkout this runs for, and the `LIBTORCH` its user set, told apart from the one cargo sets.

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
    /// The checkout whose `crates/xtask` cargo runs now; where cargo does not say, the one this was built in.
    pub(crate) fn find() -> Result<Self> {
        let package = env::var_os("CARGO_MANIFEST_DIR")
            .map_or_else(|| PathBuf::from(env!("CARGO_MANIFEST_DIR")), PathBuf::from);
        let root = package.ancestors().nth(2).context("xtask lies outside a checkout")?;
        Ok(Self { root: root.to_path_buf() })
    }

    pub(crate) fn root(&self) -> &Path {
        &self.root
    }

    /// `.libtorch`: what set-up makes, and all that the build knows.
    pub(crate) fn link(&self) -> PathBuf {
        self.root.join(".libtorch")
    }

    /// The libtorch that a plain `cargo build` uses.
    pub(crate) fn libtorch(&self) -> PathBuf {
        self.link().join("torch")
    }

    /// `LIBTORCH` as the user set it. Cargo sets it as well, from `.cargo/config.toml`, to `.libtorch/torch`.
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

/// The cargo that runs this.
pub(crate) fn cargo() -> OsString {
    env::var_os("CARGO").unwrap_or_else(|| "cargo".into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn own_libtorch_is_known_through_links() {
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
