//! Signals to `ldm train`: SIGHUP ends it like SIGTERM, SIGUSR1 writes a checkpoint and goes on, one at the end stops it too.

use std::io::{BufRead, BufReader};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use ldm_testing::{Sandbox, tiny};

use crate::LDM;

fn sandbox() -> Sandbox {
    let train = "steps: 1000000, learning_rate: 1.0e-3, log_every: 10, checkpoint_every: 1000000, keep: 100, samples: {count: 0}";
    Sandbox::new(LDM, &[("first.yaml", &tiny::first_stage("batch_size: 2, num_workers: 0", train))])
}

fn start(sandbox: &Sandbox, args: &[&str]) -> Child {
    let child = spawn(sandbox, args);
    wait_for("a line of the log", || sandbox.path("run/metrics.jsonl").is_file());
    child
}

fn spawn(sandbox: &Sandbox, args: &[&str]) -> Child {
    let mut command = sandbox.command(&["-q", "train"]);
    command
        .args(args)
        .args(["--threads", "1"])
        .env_remove("GOMP_SPINCOUNT") // of cargo
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::piped());
    command.spawn().unwrap()
}

fn wait_for(what: &str, mut there: impl FnMut() -> bool) {
    let start = Instant::now();
    while !there() {
        assert!(start.elapsed() < Duration::from_mins(1), "waited for {what}");
        std::thread::sleep(Duration::from_millis(10));
    }
}

fn send(signal: &str, child: &Child) {
    assert!(Command::new("kill").args([signal, &child.id().to_string()]).status().unwrap().success());
}

fn checkpoints(sandbox: &Sandbox) -> usize {
    let entries = std::fs::read_dir(sandbox.path("run/checkpoints")).unwrap().flatten();
    entries.filter(|entry| entry.file_name().to_string_lossy().starts_with("step-")).count()
}

#[test]
fn usr1_writes_checkpoints_and_hangup_ends_with_one() {
    let sandbox = sandbox();
    let mut child = start(&sandbox, &["first.yaml", "--run", "run"]);
    for count in 1..=2 {
        send("-USR1", &child);
        wait_for("a checkpoint", || checkpoints(&sandbox) == count);
        assert!(child.try_wait().unwrap().is_none(), "SIGUSR1 does not end the run");
    }
    let before = Instant::now();
    send("-HUP", &child);
    let output = child.wait_with_output().unwrap();
    assert!(before.elapsed() < Duration::from_secs(10), "{:?}", before.elapsed());
    assert_eq!(output.status.code(), Some(129));
    assert_eq!(checkpoints(&sandbox), 3);
}

#[test]
#[cfg(target_os = "linux")]
fn training_limits_how_long_threads_spin() {
    let sandbox = sandbox();
    let mut child = start(&sandbox, &["first.yaml", "--run", "run"]);
    let environment = std::fs::read(format!("/proc/{}/environ", child.id())).unwrap();
    child.kill().unwrap();
    child.wait().unwrap();
    let mut variables = environment.split(|&byte| byte == 0).map(String::from_utf8_lossy);
    assert!(variables.any(|variable| variable == "GOMP_SPINCOUNT=1000"));
}

#[test]
fn usr1_in_a_long_step_is_answered() {
    let sandbox = sandbox();
    let mut child = spawn(&sandbox, &["first.yaml", "--run", "run", "train.accumulate=100000"]);
    wait_for("the run", || sandbox.path("run/config.yaml").is_file());
    send("-USR1", &child);
    let mut line = String::new();
    BufReader::new(child.stderr.take().unwrap()).read_line(&mut line).unwrap();
    child.kill().unwrap();
    child.wait().unwrap();
    assert_eq!(line, "writing a checkpoint after the current step\n");
}

#[test]
fn an_ignored_hangup_stays_ignored() {
    let sandbox = sandbox();
    let mut command = Command::new("nohup");
    command.arg(LDM).args(["-q", "train", "first.yaml", "--run", "run", "--threads", "1"]);
    command.current_dir(sandbox.work()).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    let mut child = command.spawn().unwrap();
    wait_for("a line of the log", || sandbox.path("run/metrics.jsonl").is_file());
    send("-HUP", &child);
    std::thread::sleep(Duration::from_millis(500));
    assert!(child.try_wait().unwrap().is_none(), "nohup protects the run");
    send("-TERM", &child);
    assert_eq!(child.wait().unwrap().code(), Some(143));
}

#[test]
fn usr1_to_the_launcher_writes_one_checkpoint_of_all_ranks() {
    let sandbox = sandbox();
    let child = start(&sandbox, &["first.yaml", "--run", "run", "--nproc", "2", "--device", "cpu"]);
    send("-USR1", &child);
    wait_for("a checkpoint", || checkpoints(&sandbox) == 1);
    std::thread::sleep(Duration::from_millis(500));
    assert_eq!(checkpoints(&sandbox), 1, "rank 0 asks for all");
    send("-TERM", &child);
    assert_eq!(child.wait_with_output().unwrap().status.code(), Some(143));
}

#[test]
fn the_ranks_meet_on_loopback_alone() {
    let sandbox = sandbox();
    let child = start(&sandbox, &["first.yaml", "--run", "run", "--nproc", "2", "--device", "cpu"]);
    // Sockets of the ranks that listen, by their inodes: `sl local_address rem_address st … inode`, state 0A.
    let children = std::fs::read_to_string(format!("/proc/{0}/task/{0}/children", child.id())).unwrap();
    let mut inodes = Vec::new();
    for pid in children.split_whitespace() {
        for entry in std::fs::read_dir(format!("/proc/{pid}/fd")).unwrap().flatten() {
            let target = std::fs::read_link(entry.path()).unwrap_or_default();
            let inode = target
                .to_string_lossy()
                .strip_prefix("socket:[")
                .map(|text| text.trim_end_matches(']').to_owned());
            inodes.extend(inode);
        }
    }
    let mut listening = Vec::new();
    for table in ["/proc/net/tcp", "/proc/net/tcp6"] {
        for line in std::fs::read_to_string(table).unwrap_or_default().lines().skip(1) {
            let fields: Vec<&str> = line.split_whitespace().collect();
            if fields[3] == "0A" && inodes.iter().any(|inode| inode == fields[9]) {
                listening.push(fields[1].to_owned());
            }
        }
    }
    send("-TERM", &child);
    child.wait_with_output().unwrap();
    assert!(!listening.is_empty(), "rank 0 serves the store");
    assert!(
        listening.iter().all(|address| address.starts_with("0100007F:")),
        "only 127.0.0.1: {listening:?}"
    );
}

#[test]
fn a_signal_while_the_last_samples_are_drawn_is_heeded() {
    let sandbox = Sandbox::new(LDM, &[("first.yaml", tiny::FIRST_STAGE), ("second.yaml", tiny::DIFFUSION)]);
    sandbox.ok(&["train", "first.yaml", "--run", "first", "train.steps=1"]);
    let mut child = spawn(
        &sandbox,
        &["second.yaml", "--run", "run", "train.samples.steps=1000", "train.samples.count=64"],
    );
    wait_for("the last checkpoint", || sandbox.path("run/model/model.safetensors").is_file());
    assert!(child.try_wait().unwrap().is_none(), "it draws samples");
    let before = Instant::now();
    send("-TERM", &child);
    let output = child.wait_with_output().unwrap();
    assert!(before.elapsed() < Duration::from_secs(5), "{:?}", before.elapsed());
    assert_eq!(output.status.code(), Some(143));
    let sample = sandbox.path("run/samples/step-0000004.png");
    assert!(!sample.exists());
    sandbox.ok(&["train", "--resume", "run", "train.samples.steps=1"]);
    assert!(sample.is_file());
}
