//! Chromium, for the test of the server's page.

use std::env;
use std::os::unix::fs::MetadataExt;
use std::path::PathBuf;
use std::process::{Command, Stdio};

use anyhow::{Context, Result, ensure};

use crate::tools::works;

/// Programs that Playwright drives as Chromium. Last, since on Ubuntu it may be a script that only asks for a snap.
const NAMES: [&str; 4] = ["chromium", "google-chrome", "google-chrome-stable", "chromium-browser"];

/// Returns the program: that of `CHROMIUM`, an installed one, or Debian's package, which root installs.
pub(crate) fn ensure() -> Result<PathBuf> {
    if let Some(given) = env::var_os("CHROMIUM").filter(|given| !given.is_empty()) {
        let shown = given.display();
        ensure!(
            works(&given, &["--version"]),
            "CHROMIUM: expected a Chromium or Chrome that starts, got {shown}"
        );
        return Ok(given.into());
    }
    if let Some(found) = installed() {
        return Ok(found);
    }
    ensure!(
        can_install(),
        "chromium: expected Chromium or Chrome for --browser, got none, and only root can install it; try `sudo apt \
         install chromium` (Debian), or set CHROMIUM to the program"
    );
    println!("apt-get install chromium");
    apt(&["update"])?;
    // Fonts of Latin letters and of symbols: without one, screenshots show boxes.
    apt(&[
        "install",
        "--yes",
        "--no-install-recommends",
        "chromium",
        "fonts-liberation",
        "fonts-dejavu-core",
    ])?;
    installed().context(
        "chromium: expected apt-get to install a Chromium that starts, got none; try setting CHROMIUM to one",
    )
}

fn installed() -> Option<PathBuf> {
    NAMES.into_iter().find(|name| works(name, &["--version"])).map(PathBuf::from)
}

/// True for root on Debian and the like.
fn can_install() -> bool {
    // The owner of a process is its effective user.
    let root = std::fs::metadata("/proc/self").is_ok_and(|process| process.uid() == 0);
    root && works("apt-get", &["--version"])
}

fn apt(words: &[&str]) -> Result<()> {
    let mut apt = Command::new("apt-get");
    apt.arg("-qq").args(words).env("DEBIAN_FRONTEND", "noninteractive");
    let status = apt.stdin(Stdio::null()).stdout(Stdio::null()).status().context("apt-get does not start")?;
    ensure!(
        status.success(),
        "chromium: apt-get {} failed; try again with a network, or set CHROMIUM to a Chromium",
        words[0]
    );
    Ok(())
}
