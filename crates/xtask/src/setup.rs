//! Which libtorch, and that it is there.

use std::path::Path;
use std::process::{Command, Stdio};

use anyhow::{Result, anyhow, ensure};

use crate::cache::Cache;
use crate::checkout::Checkout;
use crate::libtorch::{Libtorch, Set, VERSION};
use crate::{checkout, driver, link};

/// Crates with C++ that is compiled against libtorch.
const BUILT_AGAINST: [&str; 2] = ["torch-sys", "ldm-libtorch"];

/// Makes sure of a libtorch: the user's, or what `.libtorch` holds where it fits, or what `decide` chooses.
pub(crate) fn ensure(checkout: &Checkout) -> Result<()> {
    if checkout.users_libtorch().is_none() && Libtorch::read(&checkout.libtorch()).is_ok() {
        return Ok(());
    }
    decide(checkout, None)
}

/// Decides anew: the user's `LIBTORCH`, else the set asked for, else the one this machine can use.
pub(crate) fn decide(checkout: &Checkout, asked: Option<Set>) -> Result<()> {
    let before = link::target(checkout);
    let cache;
    let found = if let Some(libtorch) = checkout.users_libtorch() {
        let found = read_users(&libtorch, asked)?;
        link::to_users(checkout, &libtorch)?;
        found
    } else {
        let machine = || if driver::is_present() { Set::Cuda } else { Set::Cpu };
        cache = Cache::of_user(asked.unwrap_or_else(machine))?;
        link::to_cache(checkout, cache.fill()?)?;
        Libtorch::read(&checkout.libtorch())
            .map_err(|why| anyhow!("{} {why}", checkout.libtorch().display()))?
    };
    let now = link::target(checkout);
    if before.is_some() && before != now {
        forget_builds(checkout);
    }
    let place = now.unwrap_or_else(|| checkout.libtorch());
    eprintln!("libtorch {} for {} is ready: {}", found.version, found.set.title(), place.display());
    Ok(())
}

fn read_users(libtorch: &Path, asked: Option<Set>) -> Result<Libtorch> {
    let shown = libtorch.display();
    ensure!(libtorch.is_absolute(), "LIBTORCH must be an absolute path, and is: {shown}");
    let found = Libtorch::read(libtorch).map_err(|why| {
        anyhow!(
            "LIBTORCH does not fit, {shown} {why}: set it to a libtorch {VERSION}, or unset it to have one \
             installed"
        )
    })?;
    ensure!(
        asked != Some(Set::Cuda) || found.set == Set::Cuda,
        "LIBTORCH is without CUDA, {shown} has no lib/libtorch_cuda.so: unset it to have libtorch for CUDA installed"
    );
    Ok(found)
}

/// What was built against another libtorch would not link: cargo sees the same path as before.
fn forget_builds(checkout: &Checkout) {
    let forgot = ["dev", "release"].iter().all(|profile| {
        let mut cargo = Command::new(checkout::cargo());
        cargo.args(["clean", "--quiet", "--profile", profile]).current_dir(checkout.root());
        cargo.args(BUILT_AGAINST.iter().flat_map(|name| ["-p", name]));
        cargo.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        cargo.status().is_ok_and(|status| status.success())
    });
    if !forgot {
        eprintln!("note: libtorch has changed, run `cargo clean` if a build fails");
    }
}
