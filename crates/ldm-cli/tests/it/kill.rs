//! A run that is killed repeatedly ends with the bits of an uninterrupted one.
//!
//! `LDM_KILLS` (default 4) is the number of kills of each stage, in `20 · LDM_KILLS` steps; the long run is
//! `LDM_KILLS=30 cargo test -p ldm-cli --test it kill`.

use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use ldm_testing::{Sandbox, tiny};

use crate::LDM;

const TRAIN: &str = "learning_rate: 1.0e-3, log_every: 3, checkpoint_every: 5, keep: 2, samples: {count: 0}, ema: {decay: 0.9}";

fn first_stage() -> String {
    tiny::first_stage("batch_size: 2, num_workers: 2", TRAIN)
        .replace("attn_type: none", "attn_type: none, dropout: 0.1")
}

fn diffusion() -> String {
    let train = format!("{TRAIN}, conditioning_dropout: 0.2, accumulate: 2");
    tiny::diffusion("batch_size: 2, num_workers: 2", &train)
        .replace("channel_mult: [1, 1], num_heads", "channel_mult: [1], num_heads")
        .replace("context_dim: 16", "context_dim: 16, dropout: 0.1")
        .replace("ckpt_path: first", "ckpt_path: whole-first")
}

fn ldm(folder: &Path, args: &[&str]) -> Child {
    Command::new(LDM)
        .args(args)
        .args(["--threads", "1", "-q"])
        .current_dir(folder)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .spawn()
        .unwrap()
}

/// Pseudorandom numbers with a fixed seed.
struct PseudoRandom(u64);

impl PseudoRandom {
    fn below(&mut self, end: u64) -> u64 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) % end
    }
}

/// The step of the newest complete checkpoint.
fn reached(run: &Path) -> u64 {
    let latest = std::fs::read_to_string(run.join("checkpoints/latest")).unwrap_or_default();
    latest.trim().strip_prefix("step-").map_or(0, |step| step.parse().unwrap())
}

/// Kills the run at `kills` random steps, and resumes it; returns how often a running process was killed.
fn kill_repeatedly(folder: &Path, config: &str, run: &str, steps: u64, kills: u64) -> u64 {
    let (mut random, mut hits) = (PseudoRandom(kills), 0);
    let path = folder.join(run);
    let overrides = format!("train.steps={steps}");
    let mut targets: Vec<u64> = (0..kills).map(|_| random.below(steps - 10)).collect();
    targets.sort_unstable();
    let start = |path: &Path| {
        // Without a checkpoint there is nothing to resume: the run starts over.
        if reached(path) == 0 {
            let _ = std::fs::remove_dir_all(path);
            return ldm(folder, &["train", config, &overrides, "--run", run]);
        }
        ldm(folder, &["train", "--resume", run])
    };
    for target in targets {
        let mut child = start(&path);
        let deadline = Instant::now() + Duration::from_mins(2);
        while reached(&path) < target && child.try_wait().unwrap().is_none() {
            assert!(Instant::now() < deadline, "{run}: no progress to step {target}");
            std::thread::sleep(Duration::from_millis(3));
        }
        // At any point: in a step, between two, or while a checkpoint is written or removed.
        std::thread::sleep(Duration::from_millis(random.below(400)));
        hits += u64::from(child.try_wait().unwrap().is_none());
        child.kill().unwrap(); // SIGKILL
        child.wait().unwrap();
    }
    assert!(start(&path).wait().unwrap().success());
    hits
}

fn check(folder: &Path, config: &str, whole: &str, kills: u64) {
    let steps = 20 * kills;
    let overrides = format!("train.steps={steps}");
    assert!(ldm(folder, &["train", config, &overrides, "--run", whole]).wait().unwrap().success());
    let broken = format!("broken-{config}");
    let hits = kill_repeatedly(folder, config, &broken, steps, kills);
    assert!(hits * 2 > kills, "{hits} of {kills} kills hit a running process");
    let last = format!("checkpoints/step-{steps:07}");
    let files = ["model", "ema", "optimizer"].map(|name| format!("{last}/{name}.safetensors"));
    for file in files.iter().map(String::as_str).chain(["model/model.safetensors"]) {
        let read = |run: &str| std::fs::read(folder.join(run).join(file)).unwrap();
        assert!(read(whole) == read(&broken), "{config}: {file} differs after {hits} kills");
    }
    let line = |run: &str| {
        let text = std::fs::read_to_string(folder.join(run).join("metrics.jsonl")).unwrap();
        let lines: Vec<serde_json::Value> =
            text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
        lines.iter().map(|line| (line["step"].as_u64().unwrap(), line["loss"].as_f64())).collect::<Vec<_>>()
    };
    assert_eq!(line(whole).last(), line(&broken).last());
    assert!(line(&broken).is_sorted_by(|a, b| a.0 < b.0), "no step is logged twice");
}

#[test]
fn killed_runs_equal_an_uninterrupted_run() {
    let kills = std::env::var("LDM_KILLS").map_or(4, |kills| kills.parse().expect("LDM_KILLS: a number"));
    let sandbox = Sandbox::new(LDM, &[("first.yaml", &first_stage()), ("second.yaml", &diffusion())]);
    check(&sandbox.work(), "first.yaml", "whole-first", kills);
    check(&sandbox.work(), "second.yaml", "whole-second", kills);
}
