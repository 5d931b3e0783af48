//! Crash consistency of a checkpoint: a run that ends at any of its system calls resumes to the bits of a whole one, and
//! what a power cut may lose is synchronized first. Needs `strace`; without it the tests report that they skip.
//!
//! By default about `3 · LDM_KILLS` of the system calls are cut; `LDM_KILLS=30` cuts at each.

use std::path::Path;
use std::process::{Command, Output, Stdio};

use ldm_testing::{Sandbox, tiny};

use crate::LDM;

/// System calls that change files, and those that make the changes durable.
const CALLS: &str = "mkdir,mkdirat,rename,renameat,renameat2,unlink,unlinkat,rmdir,fsync,fdatasync,ftruncate,linkat,chmod,fchmod";
const STEP: &str = "checkpoints/step-0000008";

fn config() -> String {
    let train = "steps: 4, learning_rate: 1.0e-3, log_every: 2, checkpoint_every: 4, keep: 1, samples: {count: 0}, ema: {decay: 0.9}";
    tiny::first_stage("batch_size: 2, num_workers: 0", train)
}

/// A sandbox with the run `base` of 4 steps and the run `whole` of 8; `None` without a working `strace`.
#[allow(clippy::print_stdout, reason = "a test says that it skips")]
fn sandbox() -> Option<Sandbox> {
    let works = Command::new("strace").args(["-f", "-o", "/dev/null", "true"]).output();
    if !works.is_ok_and(|output| output.status.success()) {
        println!("skipped: no strace that may trace");
        return None;
    }
    let sandbox = Sandbox::new(LDM, &[("first.yaml", &config())]);
    sandbox.ok(&["-q", "train", "first.yaml", "--run", "base", "--threads", "1"]);
    copy(&sandbox.path("base"), &sandbox.path("whole"));
    sandbox.ok(&["-q", "train", "--resume", "whole", "train.steps=8", "--threads", "1"]);
    Some(sandbox)
}

fn copy(from: &Path, to: &Path) {
    assert!(Command::new("cp").arg("-r").args([from, to]).status().unwrap().success());
}

/// Resumes `run` to 8 steps under strace with `options`; returns the trace too.
fn traced(sandbox: &Sandbox, run: &str, options: &[&str]) -> (Output, String) {
    let trace = sandbox.path("trace");
    let output = Command::new("strace")
        .args(["-f", "-y", "-s", "4096", "-e", &format!("trace={CALLS}")])
        .args(options)
        .arg("-o")
        .arg(&trace)
        .args([LDM, "-q", "train", "--resume", run, "train.steps=8", "--threads", "1"])
        .current_dir(sandbox.work())
        .stdin(Stdio::null())
        .output()
        .unwrap();
    (output, std::fs::read_to_string(trace).unwrap())
}

/// The changes of `run` in a trace: the name of a system call, and its paths relative to the run.
fn events(trace: &str, run: &Path) -> Vec<(String, Vec<String>)> {
    let run = run.canonicalize().unwrap();
    let root = format!("{}/", run.display());
    let relative = |path: &str| path.split_once(&root).map(|(_, path)| path.to_owned());
    let event = |line: &str| {
        let (_, call) = line.split_once(' ')?;
        let (name, rest) = call.trim_start().split_once('(')?;
        // fsync(12</path>), rename("/path", "/path"), unlinkat(5</path>, "name")
        let paths: Vec<String> = rest
            .split(['"', '<', '>'])
            .filter_map(|text| relative(text).or_else(|| text.strip_prefix("run/").map(str::to_owned)))
            .collect();
        Some((name.to_owned(), paths))
    };
    trace.lines().filter(|line| line.contains(" = 0")).filter_map(event).collect()
}

#[test]
fn a_run_cut_at_any_system_call_of_a_checkpoint_resumes_to_the_same_bits() {
    let Some(sandbox) = sandbox() else { return };
    copy(&sandbox.path("base"), &sandbox.path("run"));
    let (output, trace) = traced(&sandbox, "run", &[]);
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let calls = trace.lines().filter(|line| line.contains('(') && !line.contains("resumed>")).count();
    assert!(calls > 20, "{trace}");
    let kills: usize =
        std::env::var("LDM_KILLS").map_or(4, |kills| kills.parse().expect("LDM_KILLS: a number"));
    let stride = if kills >= 30 { 1 } else { calls.div_ceil(3 * kills).max(1) };
    let whole = |file: &str| std::fs::read(sandbox.path(&format!("whole/{file}"))).unwrap();
    let mut cut = 0;
    for at in (1..=calls).rev().step_by(stride) {
        let run = format!("cut-{at}");
        copy(&sandbox.path("base"), &sandbox.path(&run));
        let inject = format!("inject={CALLS}:signal=KILL:when={at}");
        let (output, trace) = traced(&sandbox, &run, &["-e", &inject]);
        cut += usize::from(!output.status.success());
        let shown = || trace.lines().rev().take(3).collect::<Vec<_>>().join("\n");
        let resumed = sandbox.run(&["-q", "train", "--resume", &run, "train.steps=8", "--threads", "1"]);
        let stderr = String::from_utf8_lossy(&resumed.stderr).into_owned();
        assert!(resumed.status.success(), "cut at call {at}: {stderr}\n{}", shown());
        for file in ["model", "optimizer", "ema"].map(|name| format!("{STEP}/{name}.safetensors")) {
            let got = std::fs::read(sandbox.path(&format!("{run}/{file}"))).unwrap();
            assert!(got == whole(&file), "{file} differs after a cut at call {at}\n{}", shown());
        }
        assert!(sandbox.path(&format!("{run}/model/model.safetensors")).exists());
        let left = std::fs::read_dir(sandbox.path(&format!("{run}/checkpoints"))).unwrap();
        let begun = left.flatten().find(|entry| entry.file_name().to_string_lossy().starts_with(".part-"));
        assert!(begun.is_none(), "a cut at call {at} leaves {begun:?}");
        let latest = std::fs::read_to_string(sandbox.path(&format!("{run}/checkpoints/latest"))).unwrap();
        assert_eq!(latest, "step-0000008\n", "cut at call {at}");
        std::fs::remove_dir_all(sandbox.path(&run)).unwrap();
    }
    assert!(cut > 0, "no run was cut");
}

#[test]
fn a_checkpoint_is_durable_before_it_has_its_name_and_before_another_is_removed() {
    let Some(sandbox) = sandbox() else { return };
    copy(&sandbox.path("base"), &sandbox.path("run"));
    let (_, trace) = traced(&sandbox, "run", &[]);
    let events = events(&trace, &sandbox.path("run"));
    let place = |what: &str, is: &dyn Fn(&str, &[String]) -> bool| {
        let found = events.iter().rposition(|(name, paths)| is(name, paths));
        found.unwrap_or_else(|| panic!("{what}: {events:?}"))
    };
    let is_rename = |name: &str| name.starts_with("rename");
    let partial = "checkpoints/.part-step-0000008";
    let named =
        place("the name", &|name, paths| is_rename(name) && paths.last().is_some_and(|to| to == STEP));
    let log = place("the log", &|name, paths| name.ends_with("sync") && paths == ["metrics.jsonl"]);
    let entries = place("its entries", &|name, paths| name == "fsync" && paths == [partial]);
    let files: Vec<usize> = events
        .iter()
        .enumerate()
        .filter(|(_, (name, paths))| {
            is_rename(name) && paths.last().is_some_and(|to| to.starts_with(&format!("{partial}/")))
        })
        .map(|(index, _)| index)
        .collect();
    let old = place("the old one", &|name, paths| {
        is_rename(name) && paths.first().is_some_and(|from| from == "checkpoints/step-0000004")
    });
    assert_eq!(files.len(), 4, "model, optimizer, EMA, state: {events:?}");
    // A file without a name shows as `/#INODE (deleted)` in the folder of its run.
    let synchronized = |index: &usize| {
        let (from, last) = (&events[*index].1[0], files.iter().filter(|other| *other < index).max());
        let since = last.map_or(0, |last| last + 1);
        events[since..*index].iter().any(|(name, paths)| {
            name == "fsync" && paths.iter().any(|path| path == from || path.contains('#'))
        })
    };
    assert!(files.iter().all(synchronized), "each file is synchronized before it is renamed: {events:?}");
    assert!(files.iter().all(|file| *file < entries), "the files, then the folder's entries");
    assert!(entries < named && log < named, "the entries and the log, then the name");
    assert!(named < old, "the old one is removed last");
    let parent = events[named..old].iter().any(|(name, paths)| name == "fsync" && paths == &["checkpoints"]);
    assert!(parent, "the name is durable before the old checkpoint is removed");
}
