//! Choice and installation of libtorch.

use std::path::Path;
use std::process::{Command, Stdio};

use anyhow::{Result, anyhow, ensure};

use crate::cache::Cache;
use crate::checkout::Checkout;
use crate::libtorch::{Libtorch, VERSION, Variant};
use crate::{checkout, driver, link};

/// Crates with C++ compiled against libtorch.
const BUILT_AGAINST: [&str; 2] = ["torch-sys", "ldm-libtorch"];

/// Ensures a libtorch: the user's, a suitable one in `.libtorch`, or the one chosen by [`decide`].
pub(crate) fn ensure(checkout: &Checkout) -> Result<()> {
    if checkout.users_libtorch().is_none() && Libtorch::read(&checkout.libtorch()).is_ok() {
        return Ok(());
    }
    decide(checkout, None)
}

/// Chooses again: the user's `LIBTORCH`, else the requested variant, else the one for this machine.
pub(crate) fn decide(checkout: &Checkout, requested: Option<Variant>) -> Result<()> {
    let before = link::target(checkout);
    let cache;
    let found = if let Some(libtorch) = checkout.users_libtorch() {
        let found = read_users(&libtorch, requested)?;
        link::to_users(checkout, &libtorch)?;
        found
    } else {
        let machine = || if driver::is_present() { Variant::Cuda } else { Variant::Cpu };
        cache = Cache::of_user(requested.unwrap_or_else(machine))?;
        link::to_cache(checkout, cache.fill()?)?;
        Libtorch::read(&checkout.libtorch())
            .map_err(|why| anyhow!("{} {why}", checkout.libtorch().display()))?
    };
    let now = link::target(checkout);
    if before.is_some() && before != now {
        clean_builds(checkout);
    }
    let place = now.unwrap_or_else(|| checkout.libtorch());
    eprintln!("libtorch {} for {} is ready: {}", found.version, found.set.title(), place.display());
    Ok(())
}

fn read_users(libtorch: &Path, requested: Option<Variant>) -> Result<Libtorch> {
    let shown = libtorch.display();
    ensure!(libtorch.is_absolute(), "LIBTORCH: expected an absolute path, got {shown}");
    let found = Libtorch::read(libtorch).map_err(|why| {
        anyhow!(
            "LIBTORCH: expected a libtorch {VERSION}, but {shown} {why}; try unsetting it to have one installed"
        )
    })?;
    ensure!(
        requested != Some(Variant::Cuda) || found.set == Variant::Cuda,
        "LIBTORCH: expected CUDA, but {shown} has no lib/libtorch_cuda.so; try unsetting it to have libtorch for CUDA installed"
    );
    Ok(found)
}

/// Removes builds against another libtorch, which would not link: cargo sees the same path as before.
fn clean_builds(checkout: &Checkout) {
    let cleaned = ["dev", "release"].iter().all(|profile| {
        let mut cargo = Command::new(checkout::cargo());
        cargo.args(["clean", "--quiet", "--profile", profile]).current_dir(checkout.root());
        cargo.args(BUILT_AGAINST.iter().flat_map(|name| ["-p", name]));
        cargo.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        cargo.status().is_ok_and(|status| status.success())
    });
    if !cleaned {
        eprintln!("note: libtorch has changed, run `cargo clean` if a build fails");
    }
}
