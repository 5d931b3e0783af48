//! Each missing prerequisite has one error with a remedy.

use std::fs;

use crate::machine::{FakeMachine, PIP_THAT_WORKS};

#[track_caller]
fn check(machine: &FakeMachine, parts: &[&str]) {
    let output = machine.fails(&mut machine.xtask("setup --cpu"));
    for part in parts {
        assert!(output.contains(part), "no {part:?} in: {output}");
    }
}

#[test]
fn no_python() {
    let machine = FakeMachine::new(PIP_THAT_WORKS);
    machine.without("python3");
    check(&machine, &["python3: expected Python 3", "apt install python3 python3-pip", "LIBTORCH"]);
}

#[test]
fn no_pip() {
    let machine = FakeMachine::new(PIP_THAT_WORKS);
    machine
        .tool("python3", "[ \"$1\" = -c ] && exit 0\necho /usr/bin/python3: No module named pip >&2; exit 1");
    check(&machine, &["python3: expected pip", "apt install python3-pip"]);
}

#[test]
fn no_compiler() {
    for tool in ["cc", "c++"] {
        let machine = FakeMachine::new(PIP_THAT_WORKS);
        machine.without(tool);
        check(&machine, &["expected a C and a C++ compiler", "build-essential"]);
    }
}

#[test]
fn no_network() {
    let machine = FakeMachine::new(
        "echo \"WARNING: Retrying after connection broken by 'NewConnectionError(Temporary failure in name \
         resolution)'\"\necho 'ERROR: No matching distribution found for torch==2.11.0' >&2\nexit 1",
    );
    let log = machine.path("cache/ldm/libtorch-2.11.0-cpu.log");
    check(&machine, &["cannot reach the package index", "checking the network", log.to_str().unwrap()]);
    let output = fs::read_to_string(log).unwrap();
    assert!(output.contains("Retrying") && output.contains("No matching distribution"), "{output}");
}

#[test]
fn no_wheel() {
    let machine =
        FakeMachine::new("echo 'ERROR: No matching distribution found for torch==2.11.0' >&2; exit 1");
    check(&machine, &["pip: no wheel of torch 2.11.0", "Python 3.10 to 3.14"]);
}

#[test]
fn no_room_before_the_download() {
    let machine = FakeMachine::new(PIP_THAT_WORKS);
    machine.tool("df", "echo Avail; echo 2900000000");
    check(&machine, &["got 2.9 GB", "expected 3 GB free", "XDG_CACHE_HOME"]);
    assert!(!machine.path("pip-calls").exists(), "pip ran nevertheless");
    let output = machine.fails(&mut machine.xtask("setup --cuda"));
    assert!(output.contains("expected 9 GB free"), "{output}");
}

#[test]
fn no_room_during_the_download() {
    let machine = FakeMachine::new("echo 'OSError: [Errno 28] No space left on device' >&2; exit 1");
    check(&machine, &["got a full disk", "expected 3 GB free", "XDG_CACHE_HOME"]);
}

#[test]
fn no_folder_for_the_cache() {
    let machine = FakeMachine::new(PIP_THAT_WORKS);
    fs::remove_dir(machine.path("cache")).unwrap();
    fs::write(machine.path("cache"), "").unwrap();
    check(&machine, &["cannot create", "XDG_CACHE_HOME"]);

    let output = machine.fails(machine.xtask("setup --cpu").env_remove("XDG_CACHE_HOME"));
    assert!(output.contains("HOME: expected a folder"), "{output}");
}

#[test]
fn a_compiler_that_cannot_link() {
    let machine = FakeMachine::new(&PIP_THAT_WORKS.replace("echo | cc", "true | \"$FAKE/cc\""));
    std::os::unix::fs::symlink(fs::read_link(machine.path("bin/cc")).unwrap(), machine.path("cc")).unwrap();
    machine.tool("cc", "[ \"$1\" = --version ] && exit 0\necho 'ld: cannot find crti.o' >&2; exit 1");
    check(&machine, &["a C compiler that links libtorch.so", "crti.o"]);
    assert!(!machine.set("cpu").exists());
}

#[test]
fn a_wheel_without_cuda() {
    let machine = FakeMachine::new(&format!("{PIP_THAT_WORKS}\nrm libtorch_cuda.so"));
    let output = machine.fails(&mut machine.xtask("setup --cuda"));
    assert!(output.contains("expected torch with CUDA"), "{output}");
}

#[test]
fn an_unsuitable_libtorch() {
    let machine = FakeMachine::new(PIP_THAT_WORKS);
    let old = machine.libtorch("old", "2.9.1+cpu");
    let output = machine.fails(machine.xtask("setup").env("LIBTORCH", &old));
    assert!(
        output.contains("is libtorch 2.9.1+cpu") && output.contains("expected a libtorch 2.11.0"),
        "{output}"
    );

    let output = machine.fails(machine.xtask("test").env("LIBTORCH", machine.path("nowhere")));
    assert!(output.contains("nowhere is not a folder"), "{output}");

    let output = machine.fails(machine.xtask("setup").env("LIBTORCH", "libtorch"));
    assert!(output.contains("absolute path"), "{output}");

    let cpu = machine.libtorch("new", "2.11.0+cpu");
    let output = machine.fails(machine.xtask("setup --cuda").env("LIBTORCH", &cpu));
    assert!(output.contains("LIBTORCH: expected CUDA"), "{output}");
    assert!(!machine.path("pip-calls").exists(), "pip ran nevertheless");
}

#[test]
fn unknown_arguments() {
    let machine = FakeMachine::new(PIP_THAT_WORKS);
    let output = machine.xtask("setup --gpu").output().unwrap();
    assert_eq!(output.status.code(), Some(2));
    assert!(String::from_utf8(output.stderr).unwrap().contains("Usage: cargo xtask"));
}
