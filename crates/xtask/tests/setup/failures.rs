//! Each thing a machine can lack is one sentence that says what to do.

use std::fs;

use crate::machine::{Machine, PIP_THAT_WORKS};

#[track_caller]
fn check(machine: &Machine, parts: &[&str]) {
    let said = machine.fails(&mut machine.xtask("setup --cpu"));
    for part in parts {
        assert!(said.contains(part), "no {part:?} in: {said}");
    }
}

#[test]
fn no_python() {
    let machine = Machine::new(PIP_THAT_WORKS);
    machine.without("python3");
    check(&machine, &["there is no python3", "apt install python3 python3-pip", "LIBTORCH"]);
}

#[test]
fn no_pip() {
    let machine = Machine::new(PIP_THAT_WORKS);
    machine
        .tool("python3", "[ \"$1\" = -c ] && exit 0\necho /usr/bin/python3: No module named pip >&2; exit 1");
    check(&machine, &["python3 has no pip", "apt install python3-pip"]);
}

#[test]
fn no_compiler() {
    for tool in ["cc", "c++"] {
        let machine = Machine::new(PIP_THAT_WORKS);
        machine.without(tool);
        check(&machine, &["there is no C and C++ compiler", "build-essential"]);
    }
}

#[test]
fn no_network() {
    let machine = Machine::new(
        "echo \"WARNING: Retrying after connection broken by 'NewConnectionError(Temporary failure in name \
         resolution)'\"\necho 'ERROR: No matching distribution found for torch==2.11.0' >&2\nexit 1",
    );
    let log = machine.path("cache/ldm/libtorch-2.11.0-cpu.log");
    check(&machine, &["no way to the package index", "check the network", log.to_str().unwrap()]);
    let said = fs::read_to_string(log).unwrap();
    assert!(said.contains("Retrying") && said.contains("No matching distribution"), "{said}");
}

#[test]
fn no_wheel() {
    let machine = Machine::new("echo 'ERROR: No matching distribution found for torch==2.11.0' >&2; exit 1");
    check(&machine, &["pip finds no wheel of torch 2.11.0", "Python 3.10 to 3.14"]);
}

#[test]
fn no_room_before_the_download() {
    let machine = Machine::new(PIP_THAT_WORKS);
    machine.tool("df", "echo Avail; echo 2900000000");
    check(&machine, &["has 2.9 GB free", "needs 3 GB", "XDG_CACHE_HOME"]);
    assert!(!machine.path("pip-calls").exists(), "pip ran nevertheless");
    let said = machine.fails(&mut machine.xtask("setup --cuda"));
    assert!(said.contains("needs 9 GB"), "{said}");
}

#[test]
fn no_room_during_the_download() {
    let machine = Machine::new("echo 'OSError: [Errno 28] No space left on device' >&2; exit 1");
    check(&machine, &["the disk is full", "needs 3 GB", "XDG_CACHE_HOME"]);
}

#[test]
fn no_folder_for_the_cache() {
    let machine = Machine::new(PIP_THAT_WORKS);
    fs::remove_dir(machine.path("cache")).unwrap();
    fs::write(machine.path("cache"), "").unwrap();
    check(&machine, &["cannot make", "XDG_CACHE_HOME"]);

    let said = machine.fails(machine.xtask("setup --cpu").env_remove("XDG_CACHE_HOME"));
    assert!(said.contains("there is no home folder"), "{said}");
}

#[test]
fn a_compiler_that_cannot_link() {
    let machine = Machine::new(&PIP_THAT_WORKS.replace("echo | cc", "true | \"$FAKE/cc\""));
    std::os::unix::fs::symlink(fs::read_link(machine.path("bin/cc")).unwrap(), machine.path("cc")).unwrap();
    machine.tool("cc", "[ \"$1\" = --version ] && exit 0\necho 'ld: cannot find crti.o' >&2; exit 1");
    check(&machine, &["cannot link libtorch.so", "crti.o"]);
    assert!(!machine.set("cpu").exists());
}

#[test]
fn a_wheel_without_cuda() {
    let machine = Machine::new(&format!("{PIP_THAT_WORKS}\nrm libtorch_cuda.so"));
    let said = machine.fails(&mut machine.xtask("setup --cuda"));
    assert!(said.contains("without CUDA"), "{said}");
}

#[test]
fn an_unfitting_libtorch() {
    let machine = Machine::new(PIP_THAT_WORKS);
    let old = machine.libtorch("old", "2.9.1+cpu");
    let said = machine.fails(machine.xtask("setup").env("LIBTORCH", &old));
    assert!(said.contains("is libtorch 2.9.1+cpu") && said.contains("set it to a libtorch 2.11.0"), "{said}");

    let said = machine.fails(machine.xtask("test").env("LIBTORCH", machine.path("nowhere")));
    assert!(said.contains("nowhere is not a folder"), "{said}");

    let said = machine.fails(machine.xtask("setup").env("LIBTORCH", "libtorch"));
    assert!(said.contains("absolute path"), "{said}");

    let cpu = machine.libtorch("new", "2.11.0+cpu");
    let said = machine.fails(machine.xtask("setup --cuda").env("LIBTORCH", &cpu));
    assert!(said.contains("LIBTORCH is without CUDA"), "{said}");
    assert!(!machine.path("pip-calls").exists(), "pip ran nevertheless");
}

#[test]
fn other_words() {
    let machine = Machine::new(PIP_THAT_WORKS);
    let output = machine.xtask("setup --gpu").output().unwrap();
    assert_eq!(output.status.code(), Some(2));
    assert!(String::from_utf8(output.stderr).unwrap().contains("Usage: cargo xtask"));
}
