//! `.libtorch` in the checkout: a link to the cache, or a folder with a link to the user's libtorch.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process;

use anyhow::{Context, Result, ensure};

use crate::checkout::Checkout;

/// Returns the target of `.libtorch/torch`, through either link. `None` without a link.
pub(crate) fn target(checkout: &Checkout) -> Option<PathBuf> {
    fs::read_link(checkout.link())
        .map(|cache| cache.join("torch"))
        .or_else(|_| fs::read_link(checkout.libtorch()))
        .ok()
}

/// Makes `.libtorch` a link to a folder of the cache.
pub(crate) fn to_cache(checkout: &Checkout, folder: &Path) -> Result<()> {
    if fs::read_link(checkout.link()).is_ok_and(|now| now == folder) {
        return Ok(());
    }
    replace(checkout, |new| symlink(folder, new))
}

/// Makes `.libtorch` a folder whose `torch` is a link to the user's libtorch, so that the rpath finds it.
pub(crate) fn to_users(checkout: &Checkout, libtorch: &Path) -> Result<()> {
    if fs::read_link(checkout.libtorch()).is_ok_and(|now| now == libtorch) && !checkout.link().is_symlink() {
        return Ok(());
    }
    replace(checkout, |new| {
        fs::create_dir(new)?;
        symlink(libtorch, new.join("torch"))
    })
}

/// Creates the new link under a temporary name and renames it. A link is replaced atomically; a folder is moved away
/// first.
fn replace(checkout: &Checkout, make: impl FnOnce(&Path) -> std::io::Result<()>) -> Result<()> {
    let link = checkout.link();
    ensure!(
        is_ours(&link),
        "{}: expected a link made by setup, got another folder; try moving it away, or setting LIBTORCH to the libtorch in it",
        link.display()
    );
    let with_suffix = |ending: &str| checkout.root().join(format!(".libtorch.{ending}-{}", process::id()));
    let (new, old) = (with_suffix("new"), with_suffix("old"));
    let swap = || {
        make(&new)?;
        if link.is_dir() && !link.is_symlink() || link.is_symlink() && !new.is_symlink() {
            fs::rename(&link, &old)?;
        }
        fs::rename(&new, &link)
    };
    let swapped = swap();
    if swapped.is_err() && !exists(&link) {
        // Restores the old one.
        let _ = fs::rename(&old, &link);
    }
    let _ = remove(&new);
    let _ = remove(&old);
    swapped.with_context(|| {
        format!("cannot create {}; try making the checkout's folder writable", link.display())
    })
}

/// Returns whether `link` is a link, missing, or a folder with only a link named `torch`.
fn is_ours(link: &Path) -> bool {
    if link.is_symlink() || !exists(link) {
        return true;
    }
    let only_the_link = |mut entries: fs::ReadDir| {
        entries
            .all(|entry| entry.is_ok_and(|entry| entry.path().is_symlink() && entry.file_name() == "torch"))
    };
    fs::read_dir(link).is_ok_and(only_the_link)
}

fn exists(path: &Path) -> bool {
    path.symlink_metadata().is_ok()
}

fn remove(path: &Path) -> std::io::Result<()> {
    if path.is_symlink() { fs::remove_file(path) } else { fs::remove_dir_all(path) }
}
