//! The order of what a recording asks of libtorch, by a library that takes the place of libtorch_cuda.so.

use std::path::{Path, PathBuf};
use std::process::Command;

use ldm_libtorch::{CudaGraph, cuda_device_count};
use tch::Device;

/// Environment variables of a child.
type Variables<'a> = &'a [(&'a str, &'a str)];

/// Compiles `tests/fake/libtorch_cuda.cpp` against the libtorch in use.
fn fake_library(folder: &Path) -> Option<PathBuf> {
    let libtorch = PathBuf::from(std::env::var_os("LIBTORCH")?);
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fake/libtorch_cuda.cpp");
    let library = folder.join("libtorch_cuda.so");
    let done = Command::new("c++")
        .args(["-shared", "-fPIC", "-std=c++17", "-w", "-Wl,-soname,libtorch_cuda.so", "-o"])
        .arg(&library)
        .arg(source)
        .arg(format!("-I{}", libtorch.join("include").display()))
        .arg(format!("-L{}", libtorch.join("lib").display()))
        .arg("-lc10")
        .output()
        .ok()?;
    assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
    Some(library)
}

/// Runs this test again with the library, and returns what was asked of it, the runs included.
fn recorded(library: &Path, variables: Variables<'_>) -> Vec<String> {
    let log = library.with_file_name("log");
    let _ = std::fs::remove_file(&log);
    let child = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "cuda_graph::a_recording_leaves_stream_and_device_as_they_were", "--nocapture"])
        .env("LD_PRELOAD", library)
        .env("LD_LIBRARY_PATH", Path::new(&std::env::var_os("LIBTORCH").unwrap()).join("lib"))
        .env("LDM_FAKE_LOG", &log)
        .envs(variables.iter().copied())
        .output()
        .unwrap();
    let text = String::from_utf8_lossy(&child.stdout).into_owned();
    assert!(child.status.success(), "{text}{}", String::from_utf8_lossy(&child.stderr));
    let asked = std::fs::read_to_string(log).unwrap();
    let result = text.lines().find_map(|line| line.split_once("result: ")).expect("the child's line");
    asked.lines().chain([result.1]).map(str::to_owned).collect()
}

/// The work of the child: a recording of `run`, which may fail, and two replays.
#[allow(clippy::print_stdout, reason = "its parent reads the result")]
fn child() {
    let log = std::env::var_os("LDM_FAKE_LOG").unwrap();
    let run = || {
        use std::io::Write;
        let mut log = std::fs::OpenOptions::new().append(true).open(&log).unwrap();
        writeln!(log, "run").unwrap();
        let runs = std::fs::read_to_string(std::env::var_os("LDM_FAKE_LOG").unwrap()).unwrap();
        let runs = runs.lines().filter(|line| *line == "run").count();
        assert!(std::env::var("LDM_FAKE_PANIC") != Ok(runs.to_string()), "run {runs} failed");
        runs
    };
    let result = CudaGraph::record(Device::Cuda(0), run).map(|(graph, runs)| {
        graph.replay();
        graph.replay();
        runs
    });
    println!("result: {result:?}");
}

fn all<'a>(parts: &[&[&'a str]]) -> Vec<&'a str> {
    parts.concat()
}

#[test]
fn a_recording_leaves_stream_and_device_as_they_were() {
    if std::env::var_os("LDM_FAKE_LOG").is_some() {
        return child();
    }
    let folder = tempfile::tempdir().unwrap();
    let library = if cuda_device_count() > 0 { None } else { fake_library(folder.path()) };
    let Some(library) = library else { return println!("skipped: no LIBTORCH or c++, or a GPU") };

    let enter = ["device 0", "construct", "event of stream 0", "stream 7 waits", "stream 7"];
    let begin = ["run", "run", "the host waits for stream 7", "empty cache", "begin in pool 0.5, mode 1"];
    let leave = ["stream 0", "device 1"];
    let recording = all(&[
        &enter,
        &begin,
        &["run", "end", "event of stream 7", "stream 0 waits"],
        &leave,
        &["replay", "replay", "destroy"],
    ]);
    let failed = |parts: &[&[&'static str]]| all(&[&enter, &all(parts), &leave, &["destroy"]]);
    let cases: [(Variables<'_>, Vec<&str>, &str); 7] = [
        (&[], recording, "Ok(3)"),
        (&[("LDM_FAKE_PANIC", "1")], failed(&[&["run"]]), "run 1 failed"),
        (&[("LDM_FAKE_PANIC", "3")], failed(&[&begin, &["run", "end"]]), "run 3 failed"),
        (&[("LDM_FAKE_FAILURE", "end")], failed(&[&begin, &["run", "end"]]), "failed: end"),
        (
            &[("LDM_FAKE_FAILURE", "the host waits for stream 7")],
            failed(&[&["run", "run", "the host waits for stream 7"]]),
            "failed: the host waits for stream 7",
        ),
        (
            &[("LDM_FAKE_FAILURE", "construct")],
            all(&[&["device 0", "construct", "stream 0", "device 1"]]),
            "failed: construct",
        ),
        (
            &[("LDM_FAKE_BYTES", "112")],
            failed(&[&begin, &["run", "end"]]),
            "expected a CUDAGraph of 104 bytes",
        ),
    ];
    for (variables, expected, result) in cases {
        let asked = recorded(&library, variables);
        let (last, asked) = asked.split_last().unwrap();
        assert_eq!(asked, expected, "{variables:?}");
        assert!(last.contains(result), "{variables:?}: {last}");
    }
}
