//! From a fresh machine to a working build: `cargo xtask setup | demo | test`.
//!
//! Every task first makes sure of libtorch, which then stands at `.libtorch/torch` in the checkout, where
//! `.cargo/config.toml` points both the build (`LIBTORCH`) and the programs (rpath).
#![expect(clippy::print_stdout, clippy::print_stderr, reason = "a program: it talks to its user")]

mod cache;
mod checkout;
mod driver;
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
use libtorch::Set;

const USAGE: &str = "\
From a fresh machine to a working build.

Usage: cargo xtask TASK

  setup [--cpu|--cuda]  makes sure of libtorch 2.11.0, by default for CUDA where there is an NVIDIA driver
  demo [ARGS…]          builds and runs `ldm demo ARGS`
  test [ARGS…]          runs every test: `cargo test --workspace ARGS`

libtorch is LIBTORCH where that is set, else it is installed once, by pip, into the user's cache folder.";

fn main() -> ExitCode {
    let args: Vec<OsString> = std::env::args_os().skip(1).collect();
    let Some(task) = Task::parse(&args) else {
        eprintln!("{USAGE}");
        return ExitCode::from(2);
    };
    match run(task) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) if error.is::<stop::Interrupted>() => {
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
enum Task {
    Help,
    Setup(Option<Set>),
    Demo(Vec<OsString>),
    Test(Vec<OsString>),
}

impl Task {
    fn parse(args: &[OsString]) -> Option<Self> {
        let (task, rest) = args.split_first()?;
        let rest: Vec<OsString> = rest.to_vec();
        match task.to_str()? {
            "-h" | "--help" | "help" => Some(Self::Help),
            "setup" => match rest.as_slice() {
                [] => Some(Self::Setup(None)),
                [flag] if flag == "--cpu" => Some(Self::Setup(Some(Set::Cpu))),
                [flag] if flag == "--cuda" => Some(Self::Setup(Some(Set::Cuda))),
                [flag] if flag == "--help" || flag == "-h" => Some(Self::Help),
                _ => None,
            },
            "demo" => Some(Self::Demo(rest)),
            "test" => Some(Self::Test(rest)),
            _ => None,
        }
    }
}

fn run(task: Task) -> Result<()> {
    match task {
        Task::Help => {
            println!("{USAGE}");
            Ok(())
        }
        Task::Setup(set) => setup::decide(&Checkout::find()?, set),
        Task::Demo(args) => {
            let checkout = Checkout::find()?;
            setup::ensure(&checkout)?;
            become_cargo(&checkout, &["run", "--release", "-p", "ldm-cli", "--", "demo"], &args)
        }
        Task::Test(args) => {
            let checkout = Checkout::find()?;
            setup::ensure(&checkout)?;
            become_cargo(&checkout, &["test", "--workspace"], &args)
        }
    }
}

/// Goes on as cargo: its output, its signals and its exit code are the user's own.
///
/// Stays in the user's folder, so that paths among `args` mean what they say.
fn become_cargo(checkout: &Checkout, words: &[&str], args: &[OsString]) -> Result<()> {
    let mut cargo = Command::new(checkout::cargo());
    cargo.args(words).args(args);
    if checkout.users_libtorch().is_none() {
        // Cargo set it for this process from `.cargo/config.toml` and will do so again.
        cargo.env_remove("LIBTORCH");
    }
    if std::env::var_os("CARGO_TARGET_DIR").is_some() {
        // The rpath of `.cargo/config.toml` leads from `target/` in the checkout, not from elsewhere.
        let mut path = checkout.libtorch().join("lib").into_os_string();
        if let Some(rest) = std::env::var_os("LD_LIBRARY_PATH").filter(|rest| !rest.is_empty()) {
            path.push(":");
            path.push(rest);
        }
        cargo.env("LD_LIBRARY_PATH", path);
    }
    if words[0] == "test" && std::env::var_os("LDM_WEIGHTS").is_none() {
        // What `ldm weights get` has put into the user's cache is nothing to the tests.
        cargo.env("LDM_WEIGHTS", checkout.libtorch().join("no-weights"));
    }
    let error = cargo.exec();
    Err(error).context("cargo does not start")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(line: &str) -> Option<Task> {
        Task::parse(&line.split_whitespace().map(OsString::from).collect::<Vec<_>>())
    }

    #[test]
    fn each_task_has_its_words() {
        assert_eq!(parse("setup"), Some(Task::Setup(None)));
        assert_eq!(parse("setup --cpu"), Some(Task::Setup(Some(Set::Cpu))));
        assert_eq!(parse("setup --cuda"), Some(Task::Setup(Some(Set::Cuda))));
        assert_eq!(parse("test"), Some(Task::Test(vec![])));
        assert_eq!(parse("--help"), Some(Task::Help));
    }

    #[test]
    fn what_follows_demo_is_passed_on_even_help() {
        assert_eq!(
            parse("demo --out x --help"),
            Some(Task::Demo(vec!["--out".into(), "x".into(), "--help".into()]))
        );
    }

    #[test]
    fn other_words_are_refused() {
        for line in ["", "build", "setup --gpu", "setup --cpu --cuda"] {
            assert_eq!(parse(line), None, "{line}");
        }
    }
}
