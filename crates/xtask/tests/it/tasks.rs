//! `demo` and `test` ensure libtorch and then run cargo.

use std::fs;

use crate::machine::{FakeMachine, PIP_THAT_WORKS};

/// A machine whose cargo prints its arguments.
fn machine() -> FakeMachine {
    let machine = FakeMachine::new(PIP_THAT_WORKS);
    machine.tool("cargo", "echo \"cargo $*, LIBTORCH=$LIBTORCH\"; exit 7");
    machine.libtorch("checkout/.libtorch/torch", "2.11.0");
    machine
}

#[track_caller]
fn check(machine: &FakeMachine, args: &str, libtorch: Option<&str>, expected: &str) {
    let mut xtask = machine.xtask(args);
    xtask.env("LIBTORCH", libtorch.map_or(machine.link().join("torch"), |name| machine.path(name)));
    let output = xtask.output().unwrap();
    assert_eq!(String::from_utf8(output.stdout).unwrap().trim_end(), expected);
    assert_eq!(output.status.code(), Some(7), "cargo's exit code is lost");
}

#[test]
fn demo_passes_its_arguments_on() {
    check(
        &machine(),
        "demo --out there --help",
        None,
        "cargo run --release -p ldm-cli -- demo --out there --help, LIBTORCH=",
    );
}

#[test]
fn test_runs_the_workspace() {
    check(&machine(), "test", None, "cargo test --workspace, LIBTORCH=");
}

#[test]
fn a_target_folder_elsewhere_works() {
    let machine = machine();
    machine.tool("cargo", "echo \"$LD_LIBRARY_PATH\"");
    let path = |xtask: &mut std::process::Command| String::from_utf8(xtask.output().unwrap().stdout).unwrap();
    assert_eq!(path(&mut machine.xtask("test")), "\n");
    let lib = machine.link().join("torch/lib");
    assert_eq!(
        path(machine.xtask("test").env("CARGO_TARGET_DIR", "/elsewhere").env("LD_LIBRARY_PATH", "/a:/b")),
        format!("{}:/a:/b\n", lib.display())
    );
}

#[test]
fn the_users_libtorch_stays_set() {
    let machine = machine();
    fs::remove_dir_all(machine.link()).unwrap();
    let libtorch = machine.libtorch("own", "2.11.0");
    check(&machine, "test", Some("own"), &format!("cargo test --workspace, LIBTORCH={}", libtorch.display()));
    assert_eq!(fs::read_link(machine.link().join("torch")).unwrap(), libtorch);
}

#[test]
fn a_chosen_variant_is_kept() {
    let machine = machine();
    fs::remove_dir_all(machine.link()).unwrap();
    machine.succeeds("setup --cuda");
    check(&machine, "test", None, "cargo test --workspace, LIBTORCH=");
    assert_eq!(fs::read_link(machine.link()).unwrap(), machine.set("cuda"));
}
