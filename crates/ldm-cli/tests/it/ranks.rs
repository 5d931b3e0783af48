//! `ldm train --nproc`, and torchrun's environment variables.

use std::path::Path;
use std::process::{Command, Output, Stdio};
use std::time::{Duration, Instant};

use ldm_testing::{Sandbox, tiny};

use crate::LDM;

fn first_stage() -> String {
    let train = "steps: 6, learning_rate: 1.0e-3, log_every: 2, checkpoint_every: 3, samples: {count: 2}, ema: {decay: 0.9}";
    tiny::first_stage("batch_size: 2, num_workers: 0", train)
}

fn sandbox() -> Sandbox {
    Sandbox::new(LDM, &[("first.yaml", &first_stage())])
}

fn ldm(sandbox: &Sandbox, args: &[&str]) -> Command {
    let mut command = sandbox.command(args);
    command.args(["--device", "cpu"]).stdout(Stdio::piped()).stderr(Stdio::piped());
    command
}

fn text(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

/// The child processes of `launcher`, from /proc.
fn children(launcher: u32) -> Vec<u32> {
    let path = format!("/proc/{launcher}/task/{launcher}/children");
    let list = std::fs::read_to_string(path).unwrap_or_default();
    list.split_whitespace().map(|pid| pid.parse().unwrap()).collect()
}

fn wait_for(what: &str, mut there: impl FnMut() -> bool) {
    let start = Instant::now();
    while !there() {
        assert!(start.elapsed() < Duration::from_mins(1), "waited for {what}");
        std::thread::sleep(Duration::from_millis(20));
    }
}

fn kill(signal: &str, pid: u32) {
    assert!(Command::new("kill").args([signal, &pid.to_string()]).status().unwrap().success());
}

#[test]
fn nproc_trains_and_only_rank_0_prints() {
    let sandbox = sandbox();
    let output = ldm(&sandbox, &["train", "first.yaml", "--run", "run", "--nproc", "2"]).output().unwrap();
    assert!(output.status.success(), "{}", text(&output));
    assert_eq!(String::from_utf8_lossy(&output.stdout), "run/model\n");
    assert!(text(&output).contains("on cpu, 2 ranks, from step 0"), "{}", text(&output));
    assert!(!text(&output).contains("[rank 1]"), "{}", text(&output));
    let log = std::fs::read_to_string(sandbox.path("run/metrics.jsonl")).unwrap();
    let last: serde_json::Value = serde_json::from_str(log.lines().last().unwrap()).unwrap();
    assert_eq!((log.lines().count(), last["images"].as_u64()), (3, Some(6 * 2 * 2)));
}

#[test]
fn a_killed_rank_ends_the_run_with_its_number() {
    let sandbox = sandbox();
    let args = ["train", "first.yaml", "train.steps=1000000", "--run", "run", "--nproc", "3"];
    let launcher = ldm(&sandbox, &args).spawn().unwrap();
    wait_for("a checkpoint", || sandbox.path("run/checkpoints/latest").is_file());
    let ranks = children(launcher.id());
    assert_eq!(ranks.len(), 3);
    let start = Instant::now();
    kill("-KILL", ranks[2]);
    let output = launcher.wait_with_output().unwrap();
    assert!(start.elapsed() < Duration::from_mins(1), "{:?}", start.elapsed());
    assert_eq!(output.status.code(), Some(1));
    let stderr = text(&output);
    assert!(stderr.contains("error: rank 2 was killed by signal 9"), "{stderr}");
    assert!(stderr.contains("error: rank 0 of 3: another rank has ended or does not answer"), "{stderr}");
    assert!(
        stderr.contains("[rank 1] error: rank 1 of 3: another rank has ended or does not answer"),
        "{stderr}"
    );
}

#[test]
fn a_signal_stops_all_ranks_with_a_checkpoint_that_resumes() {
    let sandbox = sandbox();
    let args = ["train", "first.yaml", "train.steps=1000000", "--run", "run", "--nproc", "2"];
    let launcher = ldm(&sandbox, &args).spawn().unwrap();
    wait_for("a checkpoint", || sandbox.path("run/checkpoints/latest").is_file());
    kill("-INT", launcher.id());
    let output = launcher.wait_with_output().unwrap();
    assert_eq!(output.status.code(), Some(130), "{}", text(&output));
    assert!(text(&output).contains("resume with: ldm train --resume run --nproc 2"), "{}", text(&output));

    let output = ldm(&sandbox, &["train", "--resume", "run"]).output().unwrap();
    assert!(text(&output).contains("got 1; try --nproc 2"), "{}", text(&output));
    let launcher = ldm(&sandbox, &["train", "--resume", "run", "--nproc", "2"]).spawn().unwrap();
    let log = || std::fs::read_to_string(sandbox.path("run/metrics.jsonl")).unwrap();
    let before = log().lines().count();
    wait_for("the log to grow", || log().lines().count() > before + 1);
    let ranks = children(launcher.id());
    // The ranks end even if the launcher is killed.
    kill("-KILL", launcher.id());
    launcher.wait_with_output().unwrap();
    wait_for("the ranks to end", || ranks.iter().all(|pid| !Path::new(&format!("/proc/{pid}/exe")).exists()));
}

#[test]
fn errors_of_ranks_are_one_line() {
    #[track_caller]
    fn check(args: &[&str], env: &[(&str, &str)], expected: &str) {
        let sandbox = sandbox();
        let mut command = Command::new(LDM);
        command.current_dir(sandbox.work()).arg("train").args(args).envs(env.iter().copied());
        let output = command.stdin(Stdio::null()).output().unwrap();
        assert!(!output.status.success() && text(&output).contains(expected), "{}", text(&output));
        assert!(!sandbox.path("runs").exists(), "expected no output");
    }
    check(&["first.yaml", "--nproc", "0"], &[], "invalid value '0' for '--nproc <N>'");
    check(&["first.yaml", "--nproc", "2", "--device", "cuda:1"], &[], "--device: expected cuda for 2 ranks");
    check(&["first.yaml"], &[("RANK", "0")], "WORLD_SIZE: expected a value");
    check(&["first.yaml"], &[("RANK", "2"), ("WORLD_SIZE", "2")], "RANK: expected less than WORLD_SIZE");
}
