//! The cache is filled once, atomically.

use std::fs;
use std::process::{Child, Command};

use crate::machine::{FakeMachine, PIP_THAT_HANGS, PIP_THAT_WORKS, succeeded, text, until};

#[test]
fn the_cpu_variant_is_the_wheel_without_cuda() {
    let machine = FakeMachine::new(PIP_THAT_WORKS);
    let output = machine.succeeds("setup --cpu");
    assert!(output.contains("libtorch 2.11.0+cpu for CPU is ready"), "{output}");

    let set = machine.set("cpu");
    let mut libraries: Vec<_> =
        fs::read_dir(set.join("torch/lib")).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    libraries.sort();
    assert_eq!(libraries, ["libc10.so", "libtorch.so", "libtorch_cpu.so"]);
    let made = fs::read(set.join("torch/lib/libtorch.so")).unwrap();
    assert!(
        made.windows(15).any(|bytes| bytes == b"libtorch_cpu.so"),
        "libtorch.so does not name libtorch_cpu.so"
    );
    assert_eq!(text(&set.join("torch/build-version")), "2.11.0+cpu");

    assert_eq!(fs::read_link(machine.link()).unwrap(), set);
    assert_eq!(machine.cached(), ["libtorch-2.11.0-cpu", "libtorch-2.11.0-cpu.lock"]);
    let calls = text(&machine.path("pip-calls"));
    assert!(calls.starts_with("-I -m pip install "), "{calls}");
    assert!(calls.contains(" --no-deps --require-hashes -r "), "{calls}");
    assert_eq!(required(&machine), ["torch", "nvidia-cuda-runtime", "nvidia-cuda-cupti"]);
}

#[test]
fn the_cuda_set_is_the_wheel_with_the_libraries_it_depends_on() {
    let machine = FakeMachine::new(PIP_THAT_WORKS);
    machine.succeeds("setup --cuda");
    let torch = machine.set("cuda").join("torch");
    assert!(torch.join("lib/libtorch_cuda.so").exists());
    assert_eq!(text(&torch.join("build-version")), "2.11.0+cu130");
    let required = required(&machine);
    for name in ["torch", "nvidia-nccl-cu13", "nvidia-cudnn-cu13"] {
        assert!(required.iter().any(|required| required == name), "{name} in {required:?}");
    }
}

/// The names in the requirements file that pip was given.
fn required(machine: &FakeMachine) -> Vec<String> {
    let text = text(&machine.path("required"));
    text.lines().filter_map(|line| line.split_once("==")).map(|(name, _)| name.to_owned()).collect()
}

#[test]
fn a_filled_cache_needs_neither_pip_nor_network() {
    let machine = FakeMachine::new(PIP_THAT_WORKS);
    machine.succeeds("setup --cpu");
    for tool in ["python3", "cc", "c++", "df"] {
        machine.without(tool);
    }
    fs::remove_file(machine.link()).unwrap();
    machine.succeeds("setup --cpu");
    assert_eq!(fs::read_link(machine.link()).unwrap(), machine.set("cpu"));
}

#[test]
fn a_damaged_cache_is_filled_again() {
    let machine = FakeMachine::new(PIP_THAT_WORKS);
    machine.succeeds("setup --cpu");
    fs::remove_file(machine.set("cpu").join("torch/lib/libc10.so")).unwrap();
    machine.succeeds("setup --cpu");
    assert!(machine.set("cpu").join("torch/lib/libc10.so").exists());
    assert_eq!(machine.cached(), ["libtorch-2.11.0-cpu", "libtorch-2.11.0-cpu.lock"]);
}

#[test]
fn signals_leave_no_partial_files() {
    for signal in ["-INT", "-TERM"] {
        let machine = FakeMachine::new(PIP_THAT_HANGS);
        let child = in_pip(&machine);
        send(&child, signal);
        let output = child.wait_with_output().unwrap();
        assert_eq!(output.status.code(), Some(130));
        let output = String::from_utf8(output.stderr).unwrap();
        assert!(output.contains("interrupted: partial files were removed"), "{output}");
        assert_eq!(machine.cached(), ["libtorch-2.11.0-cpu.lock"]);
        assert!(!machine.link().is_symlink());
    }
}

#[test]
fn leftovers_of_a_killed_setup_are_removed() {
    let machine = FakeMachine::new(PIP_THAT_HANGS);
    let mut child = in_pip(&machine);
    child.kill().unwrap();
    child.wait().unwrap();
    assert!(machine.cached().iter().any(|name| name.contains("cpu.part-")), "{:?}", machine.cached());
    assert!(!machine.set("cpu").exists(), "an incomplete installation has the final name");

    machine.python(PIP_THAT_WORKS);
    machine.succeeds("setup --cpu");
    assert_eq!(machine.cached(), ["libtorch-2.11.0-cpu", "libtorch-2.11.0-cpu.lock"]);
}

#[test]
fn one_of_two_concurrent_setups_installs() {
    let machine = FakeMachine::new(&format!("sleep 1\n{PIP_THAT_WORKS}"));
    let children = [(); 2].map(|()| machine.xtask("setup --cpu").spawn().unwrap());
    for child in children {
        succeeded(child.wait_with_output().unwrap());
    }
    assert_eq!(text(&machine.path("pip-calls")).lines().count(), 1);
}

/// A setup whose pip is running.
fn in_pip(machine: &FakeMachine) -> Child {
    let child = machine.xtask("setup --cpu").spawn().unwrap();
    let lib = machine.path(&format!("cache/ldm/libtorch-2.11.0-cpu.part-{}/set/torch/lib", child.id()));
    until("pip", || lib.exists());
    child
}

fn send(child: &Child, signal: &str) {
    assert!(Command::new("kill").args([signal, &child.id().to_string()]).status().unwrap().success());
}
