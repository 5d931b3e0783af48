//! Both stages with tiny models: overfitting, bit-exact resume, refusals.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};

use ldm_checkpoint::Checkpoint;
use ldm_core::device::test_device;
use ldm_train::{Event, Finished, RunConfig, Trainer};

use crate::{check_refused, config, configs, lock_generator, run_to_end};

const FIRST_STAGE_TRAIN: &str = "
train:
  steps: 20
  learning_rate: 1.0e-3
  schedule: {target: cosine, params: {warm_up: 3}}
  clip_grad: 500.0
  ema: {decay: 0.99}
  log_every: 5
  checkpoint_every: 10
  samples: {count: 4}
";

const DIFFUSION_TRAIN: &str = "
train:
  steps: 20
  learning_rate: 1.0e-3
  conditioning_dropout: 0.3
  accumulate: 2
  ema: {decay: 0.99}
  log_every: 5
  checkpoint_every: 10
  samples: {count: 2, steps: 3}
";

pub(crate) fn kl() -> String {
    first_stage_of("kl")
}

pub(crate) fn vq() -> String {
    first_stage_of("vq")
}

fn first_stage_of(kind: &str) -> String {
    let model = configs::first_stage(kind, &[], &["dropout: 0.1"]);
    let data = configs::data(&configs::scenes(64), Some(configs::VALIDATION));
    format!("model: {model}\n{data}{FIRST_STAGE_TRAIN}")
}

/// A class-conditional diffusion model on the first stage in `first_stage`.
pub(crate) fn diffusion(first_stage: &Path) -> String {
    let path = format!("ckpt_path: {}", first_stage.display());
    let first_stage = configs::first_stage("kl", &[&path], &["dropout: 0.1"]);
    let more = "attention_resolutions: [2], channel_mult: [1, 2], dropout: 0.1, use_checkpoint: true";
    let unet = configs::unet(4, &[more, configs::CROSS_ATTENTION]);
    let params = [
        "scale_by_std: true, cond_stage_trainable: true, linear_start: 0.0015, linear_end: 0.0195",
        &format!("unet_config: {unet}"),
        &format!("first_stage_config: {first_stage}"),
        &format!("cond_stage_config: {}", configs::CLASSES),
    ];
    let model = configs::diffusion(8, 4, &params);
    format!("{model}{}{DIFFUSION_TRAIN}", configs::data(&configs::scenes(64), None))
}

/// The last line of the log.
fn run(trainer: &mut Trainer) -> BTreeMap<String, f64> {
    run_to_end(trainer).pop().unwrap_or_default()
}

fn bytes(run: &Path, step: u64) -> Vec<(String, Vec<u8>)> {
    ["model", "ema", "optimizer"]
        .map(|name| {
            let path = run.join(format!("checkpoints/step-{step:07}/{name}.safetensors"));
            (name.to_owned(), std::fs::read(path).unwrap())
        })
        .into()
}

/// A run stopped after 9 of 20 steps and resumed by a new trainer is bit-identical to an uninterrupted run, as is its
/// log.
#[track_caller]
pub(crate) fn check_resume(text: &str, workers: usize) {
    let folder = tempfile::tempdir().unwrap();
    let (whole, broken) = (folder.path().join("whole"), folder.path().join("broken"));
    let workers = format!("data.params.num_workers={workers}");
    run(&mut Trainer::create(config(text, &[]), &whole, test_device()).unwrap());

    let stop = AtomicBool::new(false);
    let mut first = Trainer::create(config(text, &[&workers]), &broken, test_device()).unwrap();
    let finished = first
        .run(&stop, &mut |event| {
            if let Event::Step { step: 9, .. } = event {
                stop.store(true, Ordering::Relaxed);
            }
        })
        .unwrap();
    assert_eq!(finished, Finished::Stopped);
    drop(first);
    // A run killed while it wrote a checkpoint leaves a partial one, which must be ignored.
    std::fs::create_dir_all(broken.join("checkpoints/.part-step-0000019")).unwrap();
    let mut second = Trainer::resume(&broken, &[], test_device()).unwrap();
    assert_eq!(second.state().step, 9);
    let error = Trainer::resume(&broken, &[], test_device()).unwrap_err().to_string();
    assert!(error.contains("another process writes here"), "{error}");
    run(&mut second);
    drop(second);

    for ((name, whole), (_, broken)) in bytes(&whole, 20).into_iter().zip(bytes(&broken, 20)) {
        assert!(whole == broken, "{name} differs after a resume with {workers}");
    }
    let steps = |run: &Path| -> Vec<u64> {
        let text = std::fs::read_to_string(run.join("metrics.jsonl")).unwrap();
        text.lines()
            .map(|line| serde_json::from_str::<serde_json::Value>(line).unwrap()["step"].as_u64().unwrap())
            .collect()
    };
    assert!(steps(&broken).is_sorted() && steps(&broken).contains(&20));

    // Killed between the last checkpoint and the export.
    let after = ["model/config.yaml", "model/model.safetensors", "samples/step-0000020.png"];
    for file in after {
        std::fs::remove_file(broken.join(file)).unwrap();
    }
    run(&mut Trainer::resume(&broken, &[], test_device()).unwrap());
    for file in after {
        let [whole, broken] = [&whole, &broken].map(|run| std::fs::read(run.join(file)).unwrap());
        assert!(whole == broken, "{file} differs after a kill at the end, with {workers}");
    }
    let model = Checkpoint::open(whole.join("model/model.safetensors")).unwrap();
    let ema = Checkpoint::open(whole.join("checkpoints/step-0000020/ema.safetensors")).unwrap();
    let name = ema.names().next().unwrap();
    assert_eq!(model.tensor(name).unwrap(), ema.tensor(name).unwrap(), "the EMA is exported");
}

pub(crate) fn first_stage(folder: &Path) -> PathBuf {
    let root = folder.join("first-stage");
    run(&mut Trainer::create(config(&kl(), &["train.steps=3"]), &root, test_device()).unwrap());
    root
}

#[test]
fn a_kl_first_stage_resumes_bit_exactly() {
    let _lock = lock_generator();
    check_resume(&kl(), 2);
}

#[test]
fn a_vq_first_stage_resumes_bit_exactly() {
    let _lock = lock_generator();
    check_resume(&vq(), 0);
}

#[test]
fn a_diffusion_model_resumes_bit_exactly() {
    let _lock = lock_generator();
    let folder = tempfile::tempdir().unwrap();
    let first = first_stage(folder.path());
    check_resume(&diffusion(&first), 2);
}

#[test]
fn first_stages_overfit_a_few_images() {
    let _lock = lock_generator();
    for text in [kl(), vq()] {
        let folder = tempfile::tempdir().unwrap();
        let overrides = [
            "data.params.train.params.count=4",
            "train.steps=150",
            "train.learning_rate=0.003",
            "model.params.ddconfig.dropout=0.0",
            "train.checkpoint_every=1000",
        ];
        let mut trainer =
            Trainer::create(config(&text, &overrides), &folder.path().join("run"), test_device()).unwrap();
        let mut first = None;
        trainer
            .run(&AtomicBool::new(false), &mut |event| {
                if let Event::Logged(line) = event {
                    first.get_or_insert(line["rec_loss"]);
                }
            })
            .unwrap();
        let text = std::fs::read_to_string(folder.path().join("run/metrics.jsonl")).unwrap();
        let last =
            text.lines().rev().find(|line| line.contains("\"rec_loss\"") && !line.contains("val/")).unwrap();
        let last = serde_json::from_str::<serde_json::Value>(last).unwrap()["rec_loss"].as_f64().unwrap();
        assert!(last < 0.1 && last < 0.3 * first.unwrap(), "from {first:?} to {last}");
    }
}

#[test]
fn a_diffusion_model_overfits_a_few_images() {
    let _lock = lock_generator();
    let folder = tempfile::tempdir().unwrap();
    let first = first_stage(folder.path());
    let overrides = [
        "data.params.train.params.count=4",
        "data.params.batch_size=4",
        "train.accumulate=4",
        "train.steps=150",
        "train.learning_rate=0.002",
        "train.conditioning_dropout=0.0",
        "model.params.unet_config.params.dropout=0.0",
        "train.checkpoint_every=1000",
    ];
    let text = diffusion(&first);
    let last =
        run(&mut Trainer::create(config(&text, &overrides), &folder.path().join("run"), test_device())
            .unwrap());
    // The loss of an untrained model is 1.
    assert!(last["loss_simple"] < 0.35, "{last:?}");
}

#[test]
fn bf16_autocast_trains() {
    let _lock = lock_generator();
    let folder = tempfile::tempdir().unwrap();
    let overrides = ["train.dtype=bf16", "train.steps=5"];
    let last =
        run(&mut Trainer::create(config(&kl(), &overrides), &folder.path().join("run"), test_device())
            .unwrap());
    assert!(last["loss"].is_finite());
}

#[test]
fn steps_with_nan_or_inf_are_skipped_until_the_run_fails() {
    let _lock = lock_generator();
    let folder = tempfile::tempdir().unwrap();
    let broken = |root: &Path, overrides: &[&str]| {
        let mut trainer = Trainer::create(config(&kl(), overrides), root, test_device()).unwrap();
        trainer.run(&AtomicBool::new(false), &mut |_| {}).map_err(|error| error.to_string())
    };
    // A loss of 1e39 overflows f32.
    let overflowing =
        "model.params.lossconfig={target: reconstruction, params: {pixel_loss: l2, kl_weight: 1.0e39}}";
    let root = folder.path().join("at-once");
    let error = broken(&root, &[overflowing, "train.max_skipped=4"]).unwrap_err();
    assert!(error.contains("NaN or Inf in 4 steps in a row, the first of the run, up to step 4"), "{error}");
    assert!(error.contains("no checkpoint was written"), "{error}");

    // The same after a checkpoint, which is unchanged.
    let root = folder.path().join("later");
    broken(&root, &["train.steps=10"]).unwrap();
    let before = bytes(&root, 10);
    // Another loss is another run: no override, but an edited config.
    let path = root.join("config.yaml");
    let overrides = [overflowing, "train.steps=30", "train.max_skipped=3"].map(String::from);
    let edited = RunConfig::read(&path, &overrides).unwrap().to_text();
    std::fs::write(path, edited).unwrap();
    let mut trainer = Trainer::resume(&root, &[], test_device()).unwrap();
    let error = trainer.run(&AtomicBool::new(false), &mut |_| {}).unwrap_err().to_string();
    for part in ["NaN or Inf in ", "the last checkpoint is ", "step-0000010;"] {
        assert!(error.contains(part), "{error}");
    }
    assert!(before == bytes(&root, 10));
}

#[test]
fn f16_with_a_loss_scale_resumes_bit_exactly() {
    let _lock = lock_generator();
    let folder = tempfile::tempdir().unwrap();
    let first = first_stage(folder.path());
    let text = diffusion(&first)
        .replace("ema: {decay: 0.99}", "dtype: f16\n  ema: {decay: 0.99, also: [0.9]}")
        .replace("batch_size: 4", "batch_size: 1") // f16 is slow on a CPU
        .replace("accumulate: 2", "accumulate: 1");
    check_resume(&text, 0);
}

#[test]
fn bf16_with_gradient_checkpointing_resumes_bit_exactly() {
    let _lock = lock_generator();
    let folder = tempfile::tempdir().unwrap();
    let first = first_stage(folder.path());
    let text = diffusion(&first);
    check_resume(
        &text.replace("ema: {", "dtype: bf16\n  ema: {").replace("batch_size: 4", "batch_size: 2"),
        0,
    );
}

#[test]
fn invalid_configs_are_refused_before_anything_is_written() {
    let _lock = lock_generator();
    check_refused(&kl().replace("steps: 20", "stepz: 20"), &[], "unknown field `stepz`, expected one of");
    check_refused(&kl().replace("steps: 20", "stepz: 20"), &[], "at line");
    check_refused(&kl(), &["model.params.ddconfig.ch=48"], "32");
    check_refused(
        &kl(),
        &["data.params.batch_size=100"],
        "expected at most the 64 images of the set in a step, got 100",
    );
    check_refused(&kl(), &["data.params.batch_size=0"], "expected at least 1");
    check_refused(
        &kl(),
        &["train.learning_rate=null"],
        "train.learning_rate: expected a positive number, got none",
    );
    check_refused(&kl(), &["train.conditioning_dropout=2"], "expected a probability");
    check_refused(
        &kl(),
        &[
            "model.params.lossconfig={target: ldm.modules.losses.LPIPSWithDiscriminator, params: {disc_begin: 1}}",
        ],
        "lossconfig: unknown field `disc_begin`",
    );
    check_refused(&kl(), &["model.base_lr=1"], "unknown field `base_lr`");
    let missing = diffusion(Path::new("nowhere"));
    check_refused(&missing, &[], "nowhere");
    check_refused(
        &missing.replace(", ckpt_path: nowhere", ""),
        &[],
        "expected a trained first stage, got none",
    );
    let folder = tempfile::tempdir().unwrap();
    let diffusion = diffusion(&first_stage(folder.path()));
    check_refused(&diffusion, &["model.params.unet_config.params.context_dim=8"], "context_dim");
    check_refused(
        &diffusion,
        &["model.params.channels=3"],
        "channels: expected 4, those of the first stage's latents, got 3",
    );
    check_refused(&diffusion, &["train.min_snr_gamma=0"], "min_snr_gamma: expected a positive number, got 0");
    check_refused(&kl(), &["train.offset_noise=-1"], "train.offset_noise: expected at least 0, got -1");
    check_refused(
        &kl(),
        &["train.ema.also=[0.5, 1.0]"],
        "train.ema.also: expected at least 0 and below 1, got 1",
    );
    check_refused(
        &kl(),
        &["train.ema.also=[0.99]"],
        "train.ema.also: expected different decays, got 0.99 twice",
    );
    check_refused(
        &diffusion,
        &["data.params.train.params.size=16", "model.params.cond_stage_config.params.null_class=null"],
        "null_class",
    );
    check_refused(
        &diffusion,
        &["model.params.scheduler_config={target: x}"],
        "scheduler_config: unknown variant `x`",
    );
    check_refused(&diffusion, &["model.params.ckpt_path=x"], "x");
    check_refused(
        &diffusion,
        &["model.params.ckpt_path=x", "train.init_from={path: x}"],
        "train.init_from: expected none with model.params.ckpt_path",
    );
    let run = folder.path().join("first-stage");
    let from = format!("train.init_from={{path: {}}}", run.display());
    check_refused(&diffusion, &[&from], "expected a diffusion model, got another model in");
    check_refused(
        &diffusion,
        &["train.lora={rank: 2}"],
        "expected a base model in train.init_from, got none",
    );
    check_refused(
        &kl(),
        &["train.lora={rank: 2}"],
        "train.lora: expected a diffusion model, got a first stage",
    );
    check_refused(&diffusion, &["data.params.train.params.size=18"], "multiples of 2, got 9x9");
}

#[test]
fn an_image_size_not_divisible_by_the_factor_is_refused() {
    let _lock = lock_generator();
    let folder = tempfile::tempdir().unwrap();
    let config = config(&kl(), &["data.params.train.params.size=17"]);
    let root = folder.path().join("run");
    let error = Trainer::create(config, &root, test_device()).unwrap_err().to_string();
    assert!(error.contains("multiples of 2") && !root.exists(), "{error}");
}

#[test]
fn an_existing_folder_is_not_touched() {
    let _lock = lock_generator();
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("thesis.txt"), "text").unwrap();
    let error = Trainer::create(config(&kl(), &[]), folder.path(), test_device()).unwrap_err().to_string();
    assert!(
        error.contains("expected a new folder, got one with files that is no run; try another --run"),
        "{error}"
    );
    assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 1);
    let file = folder.path().join("thesis.txt");
    let error = Trainer::create(config(&kl(), &[]), &file, test_device()).unwrap_err().to_string();
    assert!(error.contains("expected a new folder, got a file; try another --run"), "{error}");
    let error = Trainer::resume(folder.path(), &[], test_device()).unwrap_err().to_string();
    assert!(error.contains("expected a run directory"), "{error}");
}
