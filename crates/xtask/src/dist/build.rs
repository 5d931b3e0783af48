//! The program of all packages: stripped, without paths of this machine, with the rpath of the packages.

use std::env;
use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::path::PathBuf;
use std::process::Command;

use anyhow::{Context, Result, ensure};

use crate::checkout::{self, Checkout};

/// The folders of libtorch, from that of the program: `lib` of the tarball, and `torch/lib` of a Python environment, where the
/// program is `ldm/bin/ldm`.
const RPATH: &str = "$ORIGIN/../lib:$ORIGIN/../../torch/lib";

/// Builds `ldm` with the profile `dist` and returns its path.
///
/// # Errors
/// When the build fails.
pub(crate) fn program(checkout: &Checkout) -> Result<PathBuf> {
    let root = checkout.root().canonicalize().context("the checkout")?;
    let target = checkout.target()?;
    let libtorch = checkout.users_libtorch().unwrap_or_else(|| checkout.libtorch()).canonicalize()?;
    let cargo_home = env::var_os("CARGO_HOME")
        .map(PathBuf::from)
        .or_else(|| Some(PathBuf::from(env::var_os("HOME")?).join(".cargo")))
        .context("HOME: expected the folder of cargo, got none; try setting CARGO_HOME")?;
    // The compilers take the last prefix that fits, and the target folder and libtorch may lie in the checkout.
    let places = [(&root, "/ldm"), (&cargo_home, "/cargo"), (&target, "/target"), (&libtorch, "/libtorch")];
    let mut rust = vec![
        format!("-Clink-arg=-Wl,-rpath,{RPATH}"),
        // DT_RPATH, which precedes LD_LIBRARY_PATH: the libraries are those of the package.
        "-Clink-arg=-Wl,--disable-new-dtags".to_owned(),
    ];
    let mut cxx = Vec::new();
    for (place, name) in places {
        let place = place.display();
        rust.push(format!("--remap-path-prefix={place}={name}"));
        cxx.push(format!("-ffile-prefix-map={place}={name}"));
    }
    let mut cargo = Command::new(checkout::cargo());
    cargo.args(["build", "--locked", "--profile", "dist", "--package", "ldm-cli"]);
    cargo.current_dir(&root);
    cargo.env("CARGO_ENCODED_RUSTFLAGS", rust.join("\u{1f}"));
    for variable in ["CFLAGS", "CXXFLAGS"] {
        let users = env::var(variable).unwrap_or_default();
        cargo.env(variable, format!("{users} {}", cxx.join(" ")));
    }
    if checkout.users_libtorch().is_none() {
        cargo.env_remove("LIBTORCH");
    }
    let status = cargo.status().context("cargo does not start")?;
    ensure!(status.success(), "cargo build: {status}");
    let program = target.join("dist/ldm");
    let bytes = fs::read(&program).with_context(|| program.display().to_string())?;
    for folder in [root.join("crates"), checkout.link(), cargo_home.join("registry")] {
        ensure!(
            !contains(&bytes, folder.as_os_str().as_bytes()),
            "{}: expected no path of this machine, got {}; a macro must have written it",
            program.display(),
            folder.display()
        );
    }
    Ok(program)
}

/// Returns whether `needle`, which is not empty, is a part of `bytes`.
fn contains(bytes: &[u8], needle: &[u8]) -> bool {
    bytes.windows(needle.len()).any(|window| window == needle)
}

/// Returns the date of a package: `SOURCE_DATE_EPOCH`, or else that of the last commit, in seconds since 1970.
///
/// # Errors
/// When neither is there.
pub(crate) fn seconds(checkout: &Checkout) -> Result<u64> {
    let text = if let Ok(text) = env::var("SOURCE_DATE_EPOCH") {
        text
    } else {
        let mut git = Command::new("git");
        let output = git.args(["log", "-1", "--format=%ct"]).current_dir(checkout.root()).output();
        output.map(|output| String::from_utf8_lossy(&output.stdout).into_owned()).unwrap_or_default()
    };
    text.trim().parse().ok().with_context(|| {
        format!("the date: expected SOURCE_DATE_EPOCH in seconds or a commit of git, got {:?}", text.trim())
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_are_found_anywhere() {
        assert!(contains(b"a /home/me/ldm/crates/x.rs", b"/home/me/ldm/crates"));
        assert!(contains(b"crates", b"crates"));
        assert!(!contains(b"/ldm/crates/x.rs", b"/home/me/ldm/crates"));
        assert!(!contains(b"", b"x"));
    }
}
