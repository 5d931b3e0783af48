//! Crash consistency of a checkpoint, a conversion and a study: one that ends at any of its system calls leaves nothing
//! half, and resumes to the bits of a whole one; what a power cut may lose is synchronized first. Needs `strace`; without
//! it the tests report that they skip.
//!
//! By default about `3 · LDM_KILLS` of the system calls are cut, of a study `LDM_KILLS`; `LDM_KILLS=30` cuts at each.

use std::path::Path;
use std::process::{Command, Output, Stdio};

use ldm_testing::{Sandbox, tiny};

use crate::LDM;
use crate::compare_f::{STUDY, results, without_times};

/// System calls that change files, and those that make the changes durable.
const CALLS: &str = "mkdir,mkdirat,rename,renameat,renameat2,unlink,unlinkat,rmdir,fsync,fdatasync,ftruncate,linkat,chmod,fchmod";
const STEP: &str = "checkpoints/step-0000008";

fn config() -> String {
    let train = "steps: 4, learning_rate: 1.0e-3, log_every: 2, checkpoint_every: 4, keep: 1, samples: {count: 0}, ema: {decay: 0.9}";
    tiny::first_stage("batch_size: 2, num_workers: 0", train)
}

#[allow(clippy::print_stdout, reason = "a test says that it skips")]
fn can_trace() -> bool {
    let works = Command::new("strace").args(["-f", "-o", "/dev/null", "true"]).output();
    let works = works.is_ok_and(|output| output.status.success());
    if !works {
        println!("skipped: no strace that may trace");
    }
    works
}

/// A sandbox with the run `base` of 4 steps and the run `whole` of 8; `None` without a working `strace`.
fn sandbox() -> Option<Sandbox> {
    if !can_trace() {
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
    traced_command(sandbox, &["train", "--resume", run, "train.steps=8", "--threads", "1"], options)
}

/// Runs a command under strace with `options`; returns the trace too.
fn traced_command(sandbox: &Sandbox, args: &[&str], options: &[&str]) -> (Output, String) {
    let trace = sandbox.path("trace");
    let output = Command::new("strace")
        .args(["-f", "-y", "-s", "4096", "-e", &format!("trace={CALLS}")])
        .args(options)
        .arg("-o")
        .arg(&trace)
        .args([LDM, "-q"])
        .args(args)
        .current_dir(sandbox.work())
        .env("LDM_WEIGHTS", sandbox.weights(""))
        .stdin(Stdio::null())
        .output()
        .unwrap();
    (output, std::fs::read_to_string(trace).unwrap())
}

/// The number of system calls in a trace.
fn count(trace: &str) -> usize {
    let calls = trace.lines().filter(|line| line.contains('(') && !line.contains("resumed>")).count();
    assert!(calls > 20, "{trace}");
    calls
}

/// The calls to cut at, from 1: about `LDM_KILLS · times` of them, the last first.
fn cuts(calls: usize, times: usize) -> impl Iterator<Item = usize> {
    let kills = std::env::var("LDM_KILLS").map_or(4, |kills| kills.parse().expect("LDM_KILLS: a number"));
    let stride = if kills >= 30 { 1 } else { calls.div_ceil(times * kills).max(1) };
    (1..=calls).rev().step_by(stride)
}

/// strace's option that kills a thread's process at its call number `at`.
fn inject(at: usize) -> String {
    format!("inject={CALLS}:signal=KILL:when={at}")
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
    let calls = count(&trace);
    let whole = |file: &str| std::fs::read(sandbox.path(&format!("whole/{file}"))).unwrap();
    let mut cut = 0;
    for at in cuts(calls, 3) {
        let run = format!("cut-{at}");
        copy(&sandbox.path("base"), &sandbox.path(&run));
        let (output, trace) = traced(&sandbox, &run, &["-e", &inject(at)]);
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

/// The bytes of the files of a model folder.
fn model(sandbox: &Sandbox, folder: &str) -> [Vec<u8>; 2] {
    ["config.yaml", "model.safetensors"].map(|file| {
        let path = sandbox.path(&format!("{folder}/{file}"));
        std::fs::read(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
    })
}

/// Converts the run `whole`.
fn convert(folder: &str) -> [&str; 6] {
    ["convert", "whole", folder, "--to", "ldm", "--force"]
}

#[test]
fn a_conversion_cut_at_any_system_call_leaves_the_old_folder_or_the_new_one() {
    let Some(sandbox) = sandbox() else { return };
    for (run, folder) in [("base", "old"), ("whole", "new")] {
        sandbox.ok(&["-q", "convert", run, folder, "--to", "ldm"]);
    }
    let (old, new) = (model(&sandbox, "old"), model(&sandbox, "new"));
    assert!(old != new, "two models");
    for replaced in [true, false] {
        let begin = |folder: &str| {
            if replaced {
                copy(&sandbox.path("old"), &sandbox.path(folder));
            }
        };
        begin("out");
        let (output, trace) = traced_command(&sandbox, &convert("out"), &[]);
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        assert!(model(&sandbox, "out") == new);
        let calls = trace.lines().filter(|line| line.contains('(') && !line.contains("resumed>")).count();
        assert!(calls > 5, "{trace}");
        let mut cut = 0;
        for at in cuts(calls, 3) {
            let folder = format!("cut-{at}");
            begin(&folder);
            let (output, trace) = traced_command(&sandbox, &convert(&folder), &["-e", &inject(at)]);
            cut += usize::from(!output.status.success());
            if replaced || sandbox.path(&folder).exists() {
                let left = model(&sandbox, &folder);
                assert!(left == new || (replaced && left == old), "half a model after call {at}\n{trace}");
            }
            let args = convert(&folder);
            sandbox.ok(&args);
            assert!(model(&sandbox, &folder) == new, "call {at}");
            std::fs::remove_dir_all(sandbox.path(&folder)).unwrap();
        }
        assert!(cut > 0, "no conversion was cut");
        std::fs::remove_dir_all(sandbox.path("out")).unwrap();
    }
}

/// A study of one factor in the file `f.yaml`.
fn study(folder: &str) -> [&str; 9] {
    [
        "compare-f",
        "f.yaml",
        "study.factors=[{f: 1, diffusion: {model.params.unet_config.params.channel_mult: [1]}}]",
        "study.measure.points=1",
        "study.measure.sampling_steps=[1]",
        "--threads",
        "1",
        "--out",
        folder,
    ]
}

#[test]
fn a_study_cut_at_any_system_call_resumes_to_the_same_results() {
    if !can_trace() {
        return;
    }
    let sandbox = Sandbox::new(LDM, &[("f.yaml", STUDY)]);
    let (output, trace) = traced_command(&sandbox, &study("whole"), &[]);
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let whole = without_times(results(&sandbox, "whole"));
    // strace counts the calls of each thread for itself.
    let threads = trace.lines().filter_map(|line| line.split_once(' ')).map(|(thread, _)| thread);
    let busiest =
        threads.clone().map(|one| threads.clone().filter(|other| *other == one).count()).max().unwrap();
    let mut cut = 0;
    for at in cuts(busiest, 1) {
        let folder = format!("cut-{at}");
        let (output, trace) = traced_command(&sandbox, &study(&folder), &["-e", &inject(at)]);
        cut += usize::from(!output.status.success());
        if sandbox.path(&format!("{folder}/study.yaml")).exists() {
            sandbox.ok(&["-q", "compare-f", "--resume", &folder, "--threads", "1"]);
        } else {
            sandbox.ok(&study(&folder));
        }
        let shown = || trace.lines().rev().take(3).collect::<Vec<_>>().join("\n");
        assert_eq!(without_times(results(&sandbox, &folder)), whole, "cut at call {at}\n{}", shown());
        std::fs::remove_dir_all(sandbox.path(&folder)).unwrap();
    }
    assert!(cut > 0, "no study was cut");
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
