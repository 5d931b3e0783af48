//! Setup of a working build on a fresh machine: `cargo xtask setup | demo | test | test-clients | kernels | dist`.
//!
//! Every command but `kernels` first ensures that libtorch is at `.libtorch/torch` in the checkout, where
//! `.cargo/config.toml` points both the build (`LIBTORCH`) and the programs (rpath).
//!
//! torch-sys' feature `download-libtorch` does not do: it downloads libtorch into each build folder again (a clean build,
//! another profile or another checkout fetch gigabytes), the libraries are in a folder with a hash in its name that no rpath
//! can name, and the features of a dependency cannot choose CUDA by the machine. Here libtorch is installed once per user,
//! completely or not at all.
#![expect(clippy::print_stdout, clippy::print_stderr, reason = "a program with a terminal")]

mod cache;
mod checkout;
mod chromium;
mod clients;
mod dist;
// A library that needs libtorch cannot be a dependency, and a published crate cannot include a file of this one.
#[path = "../../ldm-bench/src/nvidia_driver.rs"]
mod driver;
mod kernels;
mod libtorch;
mod link;
mod pip;
mod setup;
mod stop;
mod tools;

use std::ffi::OsString;
use std::os::unix::process::CommandExt;
use std::process::{Command, ExitCode};

use anyhow::{Context, Result};

use checkout::Checkout;
use dist::DistCommand;
use libtorch::Variant;

const USAGE: &str = "\
Sets up a working build.

Usage: cargo xtask COMMAND

  setup [--cpu|--cuda]  ensures libtorch 2.11.0, by default for CUDA if there is an NVIDIA driver
  demo [ARGS…]          runs setup, then builds and runs `ldm demo ARGS`
  test [ARGS…]          runs setup, then all tests: `cargo test --workspace ARGS`
  test-clients [--browser]
                        runs setup, then the clients of OpenAI's and AUTOMATIC1111's API against `ldm serve`;
                        with --browser also its page in Chromium, which root installs if there is none
  kernels               compiles the kernels for CUDA again, after a change of crates/ldm-libtorch/kernels; needs no GPU
  dist --tarball        runs setup, then makes the archive of the program with libtorch for the CPU, in target/packages
  dist --check ROOT     runs that archive in a root folder of Debian packages alone; needs root or user namespaces
  dist --wheel          runs setup, then makes the Python wheel of the program and of crates/ldm-python, in target/packages
  dist --check-wheel    installs that wheel into a Python environment, in target/wheel-check, and runs its tests

If LIBTORCH is set, that libtorch is used; otherwise pip installs it once into the user's cache folder.";

fn main() -> ExitCode {
    let args: Vec<OsString> = std::env::args_os().skip(1).collect();
    let Some(command) = XtaskCommand::parse(&args) else {
        eprintln!("{USAGE}");
        return ExitCode::from(2);
    };
    match run(command) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) if error.is::<stop::SetupInterrupted>() => {
            eprintln!("{error}");
            ExitCode::from(130)
        }
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

#[derive(Debug, PartialEq, Eq)]
enum XtaskCommand {
    Help,
    Setup(Option<Variant>),
    Demo(Vec<OsString>),
    Test(Vec<OsString>),
    /// True with the browser.
    TestClients(bool),
    Kernels,
    Dist(DistCommand),
}

impl XtaskCommand {
    fn parse(args: &[OsString]) -> Option<Self> {
        let (task, rest) = args.split_first()?;
        let rest: Vec<OsString> = rest.to_vec();
        match task.to_str()? {
            "-h" | "--help" | "help" => Some(Self::Help),
            "setup" => match rest.as_slice() {
                [] => Some(Self::Setup(None)),
                [flag] if flag == "--cpu" => Some(Self::Setup(Some(Variant::Cpu))),
                [flag] if flag == "--cuda" => Some(Self::Setup(Some(Variant::Cuda))),
                [flag] if flag == "--help" || flag == "-h" => Some(Self::Help),
                _ => None,
            },
            "demo" => Some(Self::Demo(rest)),
            "test" => Some(Self::Test(rest)),
            "test-clients" => match rest.as_slice() {
                [] => Some(Self::TestClients(false)),
                [flag] if flag == "--browser" => Some(Self::TestClients(true)),
                _ => None,
            },
            "kernels" if rest.is_empty() => Some(Self::Kernels),
            "dist" => DistCommand::parse(&rest).map(Self::Dist),
            _ => None,
        }
    }
}

fn run(command: XtaskCommand) -> Result<()> {
    match command {
        XtaskCommand::Help => {
            println!("{USAGE}");
            Ok(())
        }
        XtaskCommand::Setup(set) => setup::decide(&Checkout::find()?, set),
        XtaskCommand::Demo(args) => {
            let checkout = Checkout::find()?;
            setup::ensure(&checkout)?;
            exec_cargo(&checkout, &["run", "--release", "-p", "ldm-cli", "--", "demo"], &args)
        }
        XtaskCommand::Test(args) => {
            let checkout = Checkout::find()?;
            setup::ensure(&checkout)?;
            exec_cargo(&checkout, &["test", "--workspace"], &args)
        }
        XtaskCommand::TestClients(browser) => {
            let checkout = Checkout::find()?;
            setup::ensure(&checkout)?;
            clients::test(&checkout, browser)
        }
        XtaskCommand::Kernels => kernels::compile(&Checkout::find()?),
        XtaskCommand::Dist(command) => dist::run(&Checkout::find()?, &command),
    }
}

/// Replaces this process with cargo, so that its output, signals and exit code reach the user directly.
///
/// The working folder stays, so that relative paths in `args` are valid.
fn exec_cargo(checkout: &Checkout, words: &[&str], args: &[OsString]) -> Result<()> {
    let mut cargo = Command::new(checkout::cargo());
    cargo.args(words).args(args);
    if checkout.users_libtorch().is_none() {
        // Cargo set it for this process from `.cargo/config.toml` and will do so again.
        cargo.env_remove("LIBTORCH");
    }
    if std::env::var_os("CARGO_TARGET_DIR").is_some() {
        // The rpath of `.cargo/config.toml` is relative to `target/` in the checkout.
        let mut path = checkout.libtorch().join("lib").into_os_string();
        if let Some(rest) = std::env::var_os("LD_LIBRARY_PATH").filter(|rest| !rest.is_empty()) {
            path.push(":");
            path.push(rest);
        }
        cargo.env("LD_LIBRARY_PATH", path);
    }
    if words[0] == "test" && std::env::var_os("LDM_WEIGHTS").is_none() {
        // The tests must not depend on files that `ldm weights get` has installed.
        cargo.env("LDM_WEIGHTS", checkout.libtorch().join("no-weights"));
    }
    let error = cargo.exec();
    Err(error).context("cargo does not start")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(line: &str) -> Option<XtaskCommand> {
        XtaskCommand::parse(&line.split_whitespace().map(OsString::from).collect::<Vec<_>>())
    }

    #[test]
    fn commands_are_parsed() {
        assert_eq!(parse("setup"), Some(XtaskCommand::Setup(None)));
        assert_eq!(parse("setup --cpu"), Some(XtaskCommand::Setup(Some(Variant::Cpu))));
        assert_eq!(parse("setup --cuda"), Some(XtaskCommand::Setup(Some(Variant::Cuda))));
        assert_eq!(parse("test"), Some(XtaskCommand::Test(vec![])));
        assert_eq!(parse("test-clients --browser"), Some(XtaskCommand::TestClients(true)));
        assert_eq!(parse("test-clients --firefox"), None);
        assert_eq!(parse("dist --tarball"), Some(XtaskCommand::Dist(DistCommand::Tarball)));
        assert_eq!(parse("dist --check-wheel"), Some(XtaskCommand::Dist(DistCommand::CheckWheel)));
        assert_eq!(parse("kernels"), Some(XtaskCommand::Kernels));
        assert_eq!(parse("kernels --cuda"), None);
        assert_eq!(parse("dist"), None);
        assert_eq!(parse("--help"), Some(XtaskCommand::Help));
    }

    #[test]
    fn arguments_of_demo_are_passed_on() {
        assert_eq!(
            parse("demo --out x --help"),
            Some(XtaskCommand::Demo(vec!["--out".into(), "x".into(), "--help".into()]))
        );
    }

    #[test]
    fn unknown_commands_are_refused() {
        for line in ["", "build", "setup --gpu", "setup --cpu --cuda"] {
            assert_eq!(parse(line), None, "{line}");
        }
    }
}
