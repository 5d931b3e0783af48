//! `.libtorch` links to the libtorch chosen last.

use std::fs;
use std::os::unix::fs::symlink;

use crate::machine::{FakeMachine, PIP_THAT_WORKS, succeeded, text};

#[test]
fn a_suitable_libtorch_is_linked_in_a_folder() {
    let machine = FakeMachine::new(PIP_THAT_WORKS);
    let libtorch = machine.libtorch("opt/libtorch", "2.11.0+cpu");
    let output = succeeded(machine.xtask("setup").env("LIBTORCH", &libtorch).output().unwrap());
    assert!(output.contains("opt/libtorch"), "{output}");
    assert!(!machine.link().is_symlink());
    assert_eq!(fs::read_link(machine.link().join("torch")).unwrap(), libtorch);
    assert!(machine.cached().is_empty(), "the cache was filled nevertheless");
}

#[test]
fn cargos_own_libtorch_is_not_the_users() {
    let machine = FakeMachine::new(PIP_THAT_WORKS);
    let own = machine.link().join("torch");
    succeeded(machine.xtask("setup --cpu").env("LIBTORCH", &own).output().unwrap());
    assert_eq!(fs::read_link(machine.link()).unwrap(), machine.set("cpu"));
}

#[test]
fn a_correct_link_is_unchanged() {
    let machine = FakeMachine::new(PIP_THAT_WORKS);
    machine.succeeds("setup --cpu");
    let made = fs::symlink_metadata(machine.link()).unwrap().modified().unwrap();
    machine.succeeds("setup --cpu");
    assert_eq!(fs::symlink_metadata(machine.link()).unwrap().modified().unwrap(), made);
}

#[test]
fn wrong_and_dangling_links_are_replaced() {
    let machine = FakeMachine::new(PIP_THAT_WORKS);
    for wrong in [machine.path("nowhere"), machine.path("bin")] {
        let _ = fs::remove_file(machine.link());
        symlink(wrong, machine.link()).unwrap();
        machine.succeeds("setup --cpu");
        assert_eq!(fs::read_link(machine.link()).unwrap(), machine.set("cpu"));
    }
}

#[test]
fn links_and_folders_replace_each_other() {
    let machine = FakeMachine::new(PIP_THAT_WORKS);
    let first = machine.libtorch("first", "2.11.0");
    let second = machine.libtorch("second", "2.11.0");
    machine.succeeds("setup --cpu");
    for libtorch in [&first, &second] {
        succeeded(machine.xtask("setup").env("LIBTORCH", libtorch).output().unwrap());
        assert_eq!(&fs::read_link(machine.link().join("torch")).unwrap(), libtorch);
    }
    machine.succeeds("setup --cpu");
    assert_eq!(fs::read_link(machine.link()).unwrap(), machine.set("cpu"));
    let mut names: Vec<_> =
        fs::read_dir(machine.path("checkout")).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    names.sort();
    assert_eq!(names, [".libtorch", "crates"]);
}

#[test]
fn builds_against_another_libtorch_are_cleaned() {
    let machine = FakeMachine::new(PIP_THAT_WORKS);
    machine.tool("cargo", "echo \"$@\" >> \"$FAKE/cargo-calls\"");
    machine.succeeds("setup --cpu");
    assert!(!machine.path("cargo-calls").exists(), "there was nothing to clean");
    machine.succeeds("setup --cuda");
    assert_eq!(
        text(&machine.path("cargo-calls")),
        "clean --quiet --profile dev -p torch-sys -p ldm-libtorch\n\
         clean --quiet --profile release -p torch-sys -p ldm-libtorch\n"
    );
}

#[test]
fn other_folders_are_not_removed() {
    let machine = FakeMachine::new(PIP_THAT_WORKS);
    let kept = machine.libtorch("checkout/.libtorch/torch", "2.9.1").join("build-version");
    let output = machine.fails(&mut machine.xtask("setup --cpu"));
    assert!(output.contains("expected a link made by setup"), "{output}");
    assert!(kept.exists());
}
