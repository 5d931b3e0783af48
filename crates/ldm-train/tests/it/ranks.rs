//! Training on several ranks: the same results as on one, and a common stop. Each test starts its ranks by running its
//! own executable again.

use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use ldm_checkpoint::Checkpoint;
use ldm_libtorch::RankEnv;
use ldm_train::{Distributed, Event, Finished, Trainer};
use tch::Device;

use crate::{config, configs};

const FIRST_STAGE_TRAIN: &str = "
train:
  steps: 20
  learning_rate: 1.0e-3
  optimizer: {eps: 1.0}
  clip_grad: 100.0
  ema: {decay: 0.9}
  log_every: 5
  checkpoint_every: 10
  samples: {count: 4}
";

const DIFFUSION_TRAIN: &str = "
train:
  steps: 20
  learning_rate: 1.0e-3
  optimizer: {eps: 0.001}
  conditioning_dropout: 0.3
  accumulate: 2
  ema: {decay: 0.9}
  log_every: 5
  checkpoint_every: 10
  samples: {count: 2, steps: 2}
";

/// With an `eps` of the gradients' size: AdamW otherwise amplifies gradients that are only rounding errors, which
/// depend on the batch size, to full steps. With L2, as the derivative of L1 is discontinuous.
fn first_stage() -> String {
    let loss = "lossconfig: {target: reconstruction, params: {pixel_loss: l2}}";
    let model = configs::first_stage("kl", &[loss], &["dropout: 0.0"]);
    format!("model: {model}\n{}{FIRST_STAGE_TRAIN}", configs::data(&configs::scenes(40), None))
}

fn diffusion() -> String {
    let more = "attention_resolutions: [2], channel_mult: [1, 2], use_checkpoint: true";
    let params = [
        "cond_stage_trainable: true, linear_start: 0.0015, linear_end: 0.0195",
        &format!("unet_config: {}", configs::unet(3, &[more, configs::CROSS_ATTENTION])),
        "first_stage_config: {target: identity}",
        &format!("cond_stage_config: {}", configs::CLASSES),
    ];
    let model = configs::diffusion(16, 3, &params);
    format!("{model}{}{DIFFUSION_TRAIN}", configs::data(&configs::scenes(40), None))
}

/// The environment variable of a test's folder, for its ranks.
const FOLDER: &str = "LDM_TEST_FOLDER";

/// This process as a rank, if it was started as one.
fn rank() -> Option<(Distributed, PathBuf)> {
    let env = RankEnv::read().unwrap()?;
    let ranks = Distributed::connect(&env, Device::Cpu).unwrap();
    Some((ranks, PathBuf::from(std::env::var_os(FOLDER).unwrap())))
}

/// Starts `world` processes of this test.
fn start(test: &str, world: usize, folder: &Path) -> Vec<Child> {
    let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    (0..world)
        .map(|rank| {
            Command::new(std::env::current_exe().unwrap())
                .args([format!("ranks::{test}").as_str(), "--exact", "--nocapture"])
                .envs([("RANK", rank.to_string()), ("WORLD_SIZE", world.to_string())])
                .envs([("MASTER_ADDR", "127.0.0.1".to_owned()), ("MASTER_PORT", port.to_string())])
                .env(FOLDER, folder)
                .stdout(Stdio::piped())
                .stderr(Stdio::piped())
                .spawn()
                .unwrap()
        })
        .collect()
}

#[track_caller]
fn assert_all_pass(children: Vec<Child>) {
    for (rank, child) in children.into_iter().enumerate() {
        let output = child.wait_with_output().unwrap();
        let text =
            String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success() && text.contains("1 passed"), "rank {rank}: {text}");
    }
}

fn run(mut trainer: Trainer) {
    assert_eq!(trainer.run(&AtomicBool::new(false), &mut |_| {}).unwrap(), Finished::Done);
    trainer.train_step().distributed().close().unwrap();
}

fn weights(run: &Path, step: u64, name: &str) -> Checkpoint {
    Checkpoint::open(run.join(format!("checkpoints/step-{step:07}/{name}.safetensors"))).unwrap()
}

/// The largest difference of two checkpoints' f32 tensors, and its name.
fn difference(a: &Checkpoint, b: &Checkpoint) -> (f64, String) {
    a.names()
        .map(|name| {
            let (a, b) = (a.tensor(name).unwrap(), b.tensor(name).unwrap());
            ((a - b).abs().max().double_value(&[]), name.to_owned())
        })
        .max_by(|a, b| a.0.total_cmp(&b.0))
        .unwrap()
}

/// Two ranks with half the batch each end with the weights of one rank with the whole batch.
#[track_caller]
fn check_equal(test: &str, text: &str) {
    if let Some((ranks, folder)) = rank() {
        let config = config(text, &["data.params.batch_size=2"]);
        return run(Trainer::create_distributed(ranks, config, &folder.join("two"), Device::Cpu).unwrap());
    }
    let folder = tempfile::tempdir().unwrap();
    assert_all_pass(start(test, 2, folder.path()));
    let (one, half) = (folder.path().join("one"), folder.path().join("half"));
    run(Trainer::create(config(text, &[]), &one, Device::Cpu).unwrap());
    run(Trainer::create(config(text, &["data.params.batch_size=2"]), &half, Device::Cpu).unwrap());
    let two = folder.path().join("two");
    for name in ["model", "ema"] {
        let [one, two, half] = [&one, &two, &half].map(|run| weights(run, 20, name));
        let (distance, at) = difference(&one, &two);
        assert!(distance <= 1e-6, "{name}: {at} differs by {distance}");
        let (distance, at) = difference(&one, &half);
        assert!(distance > 1e-4, "{name}: insensitive to half of the batch: {at} differs by {distance}");
    }
    let lines = |run: &Path| -> Vec<serde_json::Value> {
        let text = std::fs::read_to_string(run.join("metrics.jsonl")).unwrap();
        text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
    };
    let (one, two) = (lines(&one), lines(&two));
    assert_eq!((one.len(), two.len()), (4, 4), "only one rank writes the log");
    for (one, two) in one.iter().zip(&two) {
        assert_eq!((&one["step"], &one["images"], &one["lr"]), (&two["step"], &two["images"], &two["lr"]));
        let [one, two] = [one, two].map(|line| line["loss"].as_f64().unwrap());
        assert!((one - two).abs() <= 1e-5 * one.abs(), "{one} and {two}");
    }
}

#[test]
fn a_first_stage_is_the_same_on_two_ranks() {
    check_equal("a_first_stage_is_the_same_on_two_ranks", &first_stage());
}

#[test]
fn a_diffusion_model_is_the_same_on_two_ranks() {
    check_equal("a_diffusion_model_is_the_same_on_two_ranks", &diffusion());
}

/// Only rank 1 receives the signal; both stop at the same step, and the resumed run is bit-identical to an
/// uninterrupted one.
#[test]
fn ranks_stop_together_and_resume_bit_exactly() {
    let name = "ranks_stop_together_and_resume_bit_exactly";
    // With dropout, which uses a separate generator on each rank.
    let overrides = ["data.params.batch_size=2", "model.params.ddconfig.dropout=0.1"];
    if let Some((ranks, folder)) = rank() {
        let (whole, broken) = (folder.join("whole"), folder.join("broken"));
        if broken.exists() {
            return run(Trainer::resume_distributed(ranks, &broken, &[], Device::Cpu).unwrap());
        }
        if whole.exists() {
            let second = !ranks.is_rank_zero();
            let mut trainer =
                Trainer::create_distributed(ranks, config(&first_stage(), &overrides), &broken, Device::Cpu)
                    .unwrap();
            let stop = AtomicBool::new(false);
            let finished = trainer
                .run(&stop, &mut |event| {
                    if let (Event::Step { step: 6, .. }, true) = (event, second) {
                        stop.store(true, Ordering::Relaxed);
                    }
                })
                .unwrap();
            assert_eq!((finished, trainer.state().step), (Finished::Stopped, 6));
            return;
        }
        return run(Trainer::create_distributed(
            ranks,
            config(&first_stage(), &overrides),
            &whole,
            Device::Cpu,
        )
        .unwrap());
    }
    let folder = tempfile::tempdir().unwrap();
    for _ in 0..2 {
        assert_all_pass(start(name, 2, folder.path()));
    }
    let (whole, broken) = (folder.path().join("whole"), folder.path().join("broken"));
    let error = Trainer::resume(&broken, &[], Device::Cpu).unwrap_err().to_string();
    assert!(
        error.contains("expected the 2 ranks that the run was started with, got 1; try --nproc 2"),
        "{error}"
    );
    assert_all_pass(start(name, 2, folder.path()));
    for name in ["model", "ema", "optimizer"] {
        let file = format!("checkpoints/step-0000020/{name}.safetensors");
        let [whole, broken] = [&whole, &broken].map(|run| std::fs::read(run.join(&file)).unwrap());
        assert!(whole == broken, "{name} differs after a resume");
    }
}

#[test]
fn flags_of_the_previous_call_are_the_same_on_all_ranks() {
    let name = "flags_of_the_previous_call_are_the_same_on_all_ranks";
    if let Some((ranks, _)) = rank() {
        let second = !ranks.is_rank_zero();
        let raised = [[false, false], [second, false], [false, !second], [false, false], [false, false]];
        let seen = raised.map(|flags| ranks.any_of_previous(flags).unwrap());
        assert_eq!(seen, [[false, false], [false, false], [true, false], [false, true], [false, false]]);
        // Others between them do not disturb.
        assert!(ranks.any(second).unwrap());
        return ranks.close().unwrap();
    }
    let folder = tempfile::tempdir().unwrap();
    assert_all_pass(start(name, 2, folder.path()));
}

#[test]
fn ranks_with_different_configs_are_refused() {
    let name = "ranks_with_different_configs_are_refused";
    if let Some((ranks, folder)) = rank() {
        let seed = format!("train.seed={}", if ranks.rank() == 1 { 7 } else { 8 });
        let config = config(&first_stage(), &[&seed]);
        let error = Trainer::create_distributed(ranks, config, &folder.join("run"), Device::Cpu).unwrap_err();
        let error = error.to_string();
        assert!(error.contains("got another one on rank 1; try the same file"), "{error}");
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    assert_all_pass(start(name, 3, folder.path()));
    assert!(!folder.path().join("run").exists(), "something was written");
}

#[test]
fn fewer_images_than_a_step_of_all_ranks_are_refused() {
    let name = "fewer_images_than_a_step_of_all_ranks_are_refused";
    if let Some((ranks, folder)) = rank() {
        let config = config(&first_stage(), &["data.params.train.params.count=7"]);
        let error = Trainer::create_distributed(ranks, config, &folder.join("run"), Device::Cpu).unwrap_err();
        let expected =
            "data.params.batch_size: expected at most the 7 images of the set in a step, got 2 ranks of 4";
        assert!(error.to_string().contains(expected), "{error}");
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    assert_all_pass(start(name, 2, folder.path()));
    assert!(!folder.path().join("run").exists(), "something was written");
}

#[test]
fn a_killed_rank_ends_the_others_with_an_error() {
    let name = "a_killed_rank_ends_the_others_with_an_error";
    if let Some((ranks, folder)) = rank() {
        let me = ranks.rank();
        let config = config(&first_stage(), &["train.steps=100000", "train.checkpoint_every=3"]);
        let mut trainer =
            Trainer::create_distributed(ranks, config, &folder.join("run"), Device::Cpu).unwrap();
        let killed = &mut |event: Event<'_>| {
            if let (Event::Step { step: 7, .. }, 1) = (event, me) {
                Command::new("kill").args(["-KILL", &std::process::id().to_string()]).status().unwrap();
            }
        };
        let error = trainer.run(&AtomicBool::new(false), killed).unwrap_err().to_string();
        let head = format!("rank {me} of 3: another rank has ended or does not answer: ");
        assert!(error.starts_with(&head) && !error.contains('\n'), "{error}");
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let started = Instant::now();
    let mut children = start(name, 3, folder.path());
    let lost = children.remove(1).wait_with_output().unwrap();
    assert!(!lost.status.success(), "rank 1 was not killed");
    assert_all_pass(children);
    assert!(started.elapsed() < Duration::from_mins(1), "{:?}", started.elapsed());
    // The last complete checkpoint remains.
    assert!(folder.path().join("run/checkpoints/step-0000006/state.json").is_file());
}
