//! One run of a study: training for its budget, and resumption.

use std::io::ErrorKind;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;

use ldm_core::device::peak_memory;
use ldm_core::{Error, Result};
use ldm_train::{Event, Finished, RunConfig, RunDir, Trainer};
use serde_json::Value;
use tch::Device;

use super::Study;
use super::results::TrainingCost;
use super::study_file::TrainingBudget;
use crate::context::bail;

/// Steps of a trial before its timing: libtorch allocates its memory in them.
const WARM_UP: u64 = 5;
/// Seconds of a trial, at least.
const TRIAL: f64 = 8.;

/// The budget of a run, and the number of evaluations in it.
#[derive(Debug, Clone, Copy)]
pub(super) struct EvalSchedule {
    pub(super) budget: TrainingBudget,
    pub(super) points: u64,
}

/// A finished run.
pub(super) struct TrainedRun {
    pub(super) config: RunConfig,
    pub(super) cost: TrainingCost,
}

/// A checkpoint to evaluate.
pub(super) struct DueCheckpoint<'a> {
    pub(super) step: u64,
    pub(super) images: u64,
    /// Seconds of training, without evaluations.
    pub(super) seconds: f64,
    /// The exported model.
    pub(super) model: &'a Path,
}

/// Trains the run of `config` in the folder `root` and calls `evaluate` for every checkpoint that is due; its error
/// stops the run. Returns `None` if the study was stopped.
pub(super) fn train(
    study: &Study,
    config: &Path,
    root: &Path,
    schedule: EvalSchedule,
    evaluate: &mut dyn FnMut(&DueCheckpoint) -> Result<()>,
) -> Result<Option<TrainedRun>> {
    let mut trainer = match open(root, study.device)? {
        Some(trainer) => trainer,
        None => match create(study, config, root, schedule)? {
            Some(trainer) => trainer,
            None => return Ok(None),
        },
    };
    let config = RunConfig::read(trainer.run_dir().config(), &[])?;
    let every = config.train.checkpoint_every;
    let model = trainer.run_dir().model();
    let (metrics, total) = (trainer.run_dir().metrics(), config.train.steps);
    let due = |step: u64| step > 0 && (step == total || step.is_multiple_of(every));
    let mut checkpoint = |step: u64| {
        let line = last_line(&metrics)?;
        let number = |key: &str| line[key].as_f64().unwrap_or(0.);
        let (images, seconds) = (number("images") as u64, number("seconds"));
        evaluate(&DueCheckpoint { step, images, seconds, model: &model })
    };
    // Left by a run that was killed between a checkpoint and its evaluation, or its exported model.
    if due(trainer.state().step) {
        trainer.export()?;
        checkpoint(trainer.state().step)?;
    }
    let (halt, mut failed, mut step) = (AtomicBool::new(false), None, trainer.state().step);
    let finished = study.reporter.train(&mut trainer, &halt, &mut |event| {
        match event {
            Event::Step { step: done, .. } => step = *done,
            // Also when the run is about to stop: it takes one more step, and this checkpoint would be lost.
            Event::Checkpoint(_) if due(step) && failed.is_none() => failed = checkpoint(step).err(),
            _ => {}
        }
        if study.stopped() || failed.is_some() {
            halt.store(true, Ordering::SeqCst);
        }
    })?;
    if let Some(error) = failed {
        return Err(error);
    }
    if finished == Finished::Stopped {
        return Ok(None);
    }
    let line = last_line(&trainer.run_dir().metrics())?;
    let (images, seconds) = (line["images"].as_u64().unwrap_or(0), line["seconds"].as_f64().unwrap_or(0.));
    let cost = TrainingCost {
        parameters: trainer.parameters(),
        steps: total,
        images,
        seconds,
        images_per_second: images as f64 / seconds.max(1e-9),
        peak_memory: peak_memory(study.device),
    };
    Ok(Some(TrainedRun { config, cost }))
}

/// Resumes a run. One that ended before its first checkpoint is renamed and starts over; no other run is touched.
fn open(root: &Path, device: Device) -> Result<Option<Trainer>> {
    match std::fs::symlink_metadata(root) {
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
        found => found.map_err(Error::io(root))?,
    };
    if !RunDir::is_unstarted(root)? {
        return Trainer::resume(root, &[], device).map(Some);
    }
    let aside = |count: u32| {
        let mut name = root.file_name().unwrap_or_default().to_os_string();
        name.push(format!(".unstarted-{count}"));
        root.with_file_name(name)
    };
    let free = (1..=u32::MAX).map(aside).find(|path| !path.exists()).expect("more names than files");
    std::fs::rename(root, free).map_err(Error::io(root))?;
    Ok(None)
}

/// Creates a run; `None` if the study was stopped during its trial.
fn create(study: &Study, config: &Path, root: &Path, schedule: EvalSchedule) -> Result<Option<Trainer>> {
    let shared = RunConfig::read(config, &[])?;
    let batch = shared.data.batch_size as u64 * shared.train.accumulate;
    let steps = schedule.budget.steps(batch, || rate(study, config, &root.with_extension("trial")));
    let steps = match steps {
        _ if study.stopped() => return Ok(None),
        steps => steps?,
    };
    study.reporter.say(&format!("{steps} steps of {batch} images"));
    // A checkpoint falls on a line of the log, which has the cost of training so far.
    let every = steps.div_ceil(schedule.points);
    let log = shared.train.log_every.min(every);
    let overrides = [
        format!("train.steps={steps}"),
        format!("train.log_every={log}"),
        format!("train.checkpoint_every={}", every.next_multiple_of(log)),
    ];
    Trainer::create(RunConfig::read(config, &overrides)?, root, study.device).map(Some)
}

/// Measures the steps per second in a short trial in the folder `scratch`.
fn rate(study: &Study, config: &Path, scratch: &Path) -> Result<f64> {
    let clear = || match std::fs::remove_dir_all(scratch) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => Err(Error::io(scratch)(error)),
        _ => Ok(()),
    };
    clear()?;
    // A line of the log waits for the device.
    let trial = ["train.checkpoint_every=1000000", "train.log_every=5", "train.samples.count=0"];
    let config = RunConfig::read(config, &trial.map(String::from))?;
    let mut trainer = Trainer::create(config, scratch, study.device)?;
    let (halt, mut since, mut timed) = (AtomicBool::new(false), Instant::now(), (0, 0.));
    trainer.run(&halt, &mut |event| {
        if let Event::Logged(line) = event {
            let step = line.get("step").map_or(0, |step| *step as u64);
            if step == WARM_UP {
                since = Instant::now();
            } else if step > WARM_UP {
                timed = (step - WARM_UP, since.elapsed().as_secs_f64());
            }
        }
        if timed.1 > TRIAL || study.stopped() {
            halt.store(true, Ordering::SeqCst);
        }
    })?;
    drop(trainer);
    clear()?;
    if timed.0 == 0 {
        bail!("{}: expected a trial of more than {WARM_UP} steps, got fewer", scratch.display());
    }
    Ok(timed.0 as f64 / timed.1)
}

/// Returns the last line of training in `metrics.jsonl`.
fn last_line(path: &Path) -> Result<Value> {
    let bytes = std::fs::read(path).map_err(Error::io(path))?;
    let lines = bytes.rsplit(|byte| *byte == b'\n');
    let mut lines = lines.filter_map(|line| serde_json::from_slice::<Value>(line).ok());
    lines
        .find(|line| line.get("seconds").is_some())
        .ok_or_else(|| Error::format(path, "expected a line of training, got none"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_run_without_checkpoints_starts_over_and_none_is_removed() {
        let folder = tempfile::tempdir().unwrap();
        let root = folder.path().join("diffusion");
        assert!(open(&root, Device::Cpu).unwrap().is_none());
        for count in 1..=2 {
            std::fs::create_dir_all(root.join("checkpoints")).unwrap();
            std::fs::write(root.join("metrics.jsonl"), "{}\n").unwrap();
            assert!(open(&root, Device::Cpu).unwrap().is_none());
            let aside = folder.path().join(format!("diffusion.unstarted-{count}/metrics.jsonl"));
            assert!(!root.exists() && aside.exists());
        }
        // Without its config, or with a damaged checkpoint, a run of days is an error.
        let state = root.join("checkpoints/step-0000010/state.json");
        std::fs::create_dir_all(state.parent().unwrap()).unwrap();
        std::fs::write(&state, "").unwrap();
        let error = open(&root, Device::Cpu).unwrap_err().to_string();
        assert!(error.contains("expected a run directory"), "{error}");
        std::fs::write(root.join("config.yaml"), "model: 1\n").unwrap();
        open(&root, Device::Cpu).unwrap_err();
        std::fs::remove_dir_all(root.join("checkpoints")).unwrap();
        std::fs::write(root.join("checkpoints"), "no folder").unwrap();
        let error = open(&root, Device::Cpu).unwrap_err();
        assert!(matches!(error, Error::Io { .. }), "{error}");
        assert!(root.join("config.yaml").exists(), "nothing is renamed");
    }
}
