//! Nothing that was written is lost: NaN and Inf in checkpoints, damaged and unfinished checkpoints, torn logs.

use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use ldm_checkpoint::Checkpoint;
use ldm_core::{Error, NoiseSource, Result};
use ldm_data::Batch;
use ldm_train::{
    BestMode, Event, Finished, KeepBest, Loss, NamedTensors, Objective, Phase, Retention, RunDir, StepInfo,
    TrainConfig, TrainerBuilder, Validate,
};

use crate::open_trainer::{Linear, Waves, builder, train};
use crate::run_to_end;

/// A linear model whose validation gives `metrics`.
struct Rated {
    linear: Linear,
    metrics: Vec<(&'static str, f64)>,
}

impl Objective for Rated {
    fn phases(&self) -> Vec<Phase> {
        self.linear.phases()
    }
    fn loss(&self, info: StepInfo, batch: &Batch, noise: &mut dyn NoiseSource) -> Result<Loss> {
        self.linear.loss(info, batch, noise)
    }
    fn weights(&self) -> NamedTensors {
        self.linear.weights()
    }
    fn load(&mut self, checkpoint: Checkpoint) -> Result<()> {
        self.linear.load(checkpoint)
    }
    fn as_validate(&self) -> Option<&dyn Validate> {
        Some(self)
    }
}

impl Validate for Rated {
    fn validate(&self, _: &mut dyn Iterator<Item = Result<Batch>>) -> Result<Vec<(&'static str, f64)>> {
        Ok(self.metrics.clone())
    }
}

fn rated(metrics: &[(&'static str, f64)], root: &Path) -> TrainerBuilder {
    let best = KeepBest { metric: "val/psnr".into(), mode: BestMode::Max, count: 1 };
    let config = TrainConfig { validate_every: 10, keep_best: Some(best), ..train() };
    let objective = Rated { linear: Linear::new(), metrics: metrics.to_vec() };
    builder(config, root).objective(objective).validation(Arc::new(Waves { random: false }))
}

fn step_dir(root: &Path, step: u64) -> PathBuf {
    root.join(format!("checkpoints/step-{step:07}"))
}

/// The lines of `metrics.jsonl`.
fn lines(root: &Path) -> Vec<serde_json::Value> {
    let text = std::fs::read_to_string(root.join("metrics.jsonl")).unwrap();
    text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

#[test]
fn a_validation_of_nan_or_inf_is_written_and_read() {
    let values = [("val/psnr", f64::INFINITY), ("val/nan", f64::NAN), ("val/low", f64::NEG_INFINITY)];
    let folder = tempfile::tempdir().unwrap();
    let root = folder.path().join("run");
    run_to_end(&mut rated(&values, &root).build().unwrap());
    let line = lines(&root).into_iter().rev().find(|line| line.get("val/psnr").is_some()).unwrap();
    let texts = ["val/psnr", "val/nan", "val/low"].map(|name| line[name].as_str().unwrap().to_owned());
    assert_eq!(texts, ["Infinity", "NaN", "-Infinity"]);
    let resumed = rated(&values, &root).resume().unwrap();
    let read = &resumed.state().validation;
    assert!(read["val/psnr"] == f64::INFINITY && read["val/nan"].is_nan() && read["val/low"] < -1e300);
    drop(resumed);

    // As earlier versions wrote them.
    let state = step_dir(&root, 40).join("state.json");
    let text = std::fs::read_to_string(&state).unwrap();
    let null = ["\"Infinity\"", "\"NaN\"", "\"-Infinity\""]
        .iter()
        .fold(text, |text, name| text.replace(name, "null"));
    assert!(null.contains("null"), "{null}");
    std::fs::write(&state, null).unwrap();
    assert_eq!(rated(&values, &root).resume().unwrap().state().step, 40);
}

/// A run with checkpoints at 10, 20, 30 and 40.
fn trained(folder: &Path) -> PathBuf {
    let root = folder.join("run");
    run_to_end(&mut every_ten(&root).build().unwrap());
    root
}

fn every_ten(root: &Path) -> TrainerBuilder {
    builder(TrainConfig { checkpoint_every: 10, keep: 9, ..train() }, root)
}

/// Resumes, and returns the step and the notes of the run to its end.
fn resume(root: &Path) -> (u64, Vec<String>) {
    let mut trainer = every_ten(root).resume().unwrap();
    let (step, mut notes) = (trainer.state().step, Vec::new());
    let finished = trainer.run(&AtomicBool::new(false), &mut |event| {
        if let Event::Note(note) = event {
            notes.push(note.to_owned());
        }
    });
    assert_eq!(finished.unwrap(), Finished::Done);
    (step, notes)
}

#[test]
fn resume_falls_back_to_the_newest_whole_checkpoint_and_says_so() {
    #[allow(clippy::type_complexity, reason = "a table")]
    let damages: [(&str, fn(&Path)); 4] = [
        ("removed", |path| std::fs::remove_file(path).unwrap()),
        ("emptied", |path| std::fs::write(path, "").unwrap()),
        ("halved", |path| {
            let bytes = std::fs::read(path).unwrap();
            std::fs::write(path, &bytes[..bytes.len() / 2]).unwrap();
        }),
        ("one byte short", |path| {
            let bytes = std::fs::read(path).unwrap();
            std::fs::write(path, &bytes[..bytes.len() - 2]).unwrap();
        }),
    ];
    let folder = tempfile::tempdir().unwrap();
    let root = trained(folder.path());
    let whole = std::fs::read(step_dir(&root, 40).join("model.safetensors")).unwrap();
    for file in ["state.json", "model.safetensors", "optimizer.safetensors", "ema.safetensors"] {
        for (how, damage) in damages {
            damage(&step_dir(&root, 40).join(file));
            let (step, notes) = resume(&root);
            assert_eq!(step, 30, "{file} {how}");
            assert!(
                notes.iter().any(|note| note.starts_with("passed over a damaged checkpoint: ") && note.contains(file)),
                "{file} {how}: {notes:?}"
            );
            let again = std::fs::read(step_dir(&root, 40).join("model.safetensors")).unwrap();
            assert!(again == whole, "{file} {how}: the damaged checkpoint is written again");
        }
    }
    for step in [10, 20, 30, 40] {
        std::fs::write(step_dir(&root, step).join("state.json"), "{}").unwrap();
    }
    let error = every_ten(&root).resume().unwrap_err().to_string();
    assert!(error.contains("expected a complete checkpoint to resume from, got "), "{error}");
    assert!(
        error.contains("step-0000010/state.json") && error.contains("step-0000040/state.json"),
        "{error}"
    );
}

#[test]
fn an_old_checkpoint_that_cannot_be_read_is_left_alone() {
    let folder = tempfile::tempdir().unwrap();
    let root = folder.path().join("run");
    let config = TrainConfig { checkpoint_every: 10, keep: 1, ..train() };
    let mut trainer = builder(config, &root).build().unwrap();
    let finished = trainer.run(&AtomicBool::new(false), &mut |event| {
        if let Event::Checkpoint(path) = event
            && path.ends_with("step-0000010")
        {
            std::fs::write(path.join("state.json"), "").unwrap();
        }
    });
    assert_eq!(finished.unwrap(), Finished::Done);
    let mut left: Vec<String> = std::fs::read_dir(root.join("checkpoints"))
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    left.sort();
    assert_eq!(left, ["latest", "step-0000010", "step-0000040"]);
    assert!(root.join("model/model.safetensors").exists(), "the model is exported");
}

#[test]
fn torn_lines_of_the_log_are_removed_whatever_their_bytes() {
    let folder = tempfile::tempdir().unwrap();
    let root = trained(folder.path());
    let before = lines(&root);
    std::fs::remove_dir_all(step_dir(&root, 40)).unwrap();
    let mut log = std::fs::OpenOptions::new().append(true).open(root.join("metrics.jsonl")).unwrap();
    log.write_all(b"{\"step\":3,\xff\xfe{\"cluster_usage\":").unwrap();
    drop(log);
    assert_eq!(resume(&root).0, 30);
    let steps =
        |lines: &[serde_json::Value]| lines.iter().map(|line| line["step"].clone()).collect::<Vec<_>>();
    assert_eq!(steps(&lines(&root)), steps(&before));

    // An error that is not an absence is reported.
    let log = root.join("metrics.jsonl");
    std::fs::remove_file(&log).unwrap();
    std::fs::create_dir(&log).unwrap();
    let error = every_ten(&root).resume().unwrap_err();
    assert!(matches!(error, Error::Io { .. }), "{error}");
}

#[test]
fn a_complete_checkpoint_without_its_name_is_adopted() {
    let folder = tempfile::tempdir().unwrap();
    let root = trained(folder.path());
    let checkpoints = root.join("checkpoints");
    for name in [".part-step-0000040", ".part-old-step-0000040"] {
        std::fs::rename(step_dir(&root, 40), checkpoints.join(name)).unwrap();
        assert_eq!(resume(&root).0, 40, "{name}");
        assert!(step_dir(&root, 40).exists() && !checkpoints.join(name).exists());
    }
    // Not one without all its files, nor one that retention began to remove, nor one that is older than a whole one.
    for (name, damage) in [(".part-step-0000040", true), (".part-gone-step-0000040", false)] {
        std::fs::rename(step_dir(&root, 40), checkpoints.join(name)).unwrap();
        if damage {
            std::fs::remove_file(checkpoints.join(name).join("optimizer.safetensors")).unwrap();
        }
        assert_eq!(resume(&root).0, 30, "{name}");
        assert!(!checkpoints.join(name).exists());
    }
    std::fs::rename(step_dir(&root, 20), checkpoints.join(".part-step-0000020")).unwrap();
    assert_eq!(resume(&root).0, 40);
    assert!(!step_dir(&root, 20).exists());
}

#[test]
fn the_same_step_is_replaced_only_by_a_complete_checkpoint() {
    let folder = tempfile::tempdir().unwrap();
    let run = RunDir::create(&folder.path().join("run")).unwrap();
    let keep = Retention { newest: 1, every: 0, best: None };
    let write = |text: &'static str| {
        run.checkpoint(5, &keep, |folder| {
            std::fs::write(folder.join("state.json"), text).map_err(Error::io(folder))
        })
    };
    let state = step_dir(run.root(), 5).join("state.json");
    write("first").unwrap();
    let failed = run.checkpoint(5, &keep, |_| {
        assert_eq!(std::fs::read_to_string(&state).unwrap(), "first");
        Err(Error::invalid("full disk"))
    });
    assert_eq!(failed.unwrap_err().to_string(), "full disk");
    assert_eq!(std::fs::read_to_string(&state).unwrap(), "first");
    write("second").unwrap();
    assert_eq!(std::fs::read_to_string(&state).unwrap(), "second");
    let left = std::fs::read_dir(run.root().join("checkpoints")).unwrap().count();
    assert_eq!(left, 2, "the checkpoint and `latest`");
}
