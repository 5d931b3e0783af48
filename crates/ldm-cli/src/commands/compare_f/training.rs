//! One run of a study: trained for its budget, taken up again where it was stopped.

use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;

use anyhow::{Context, bail};
use ldm_core::device::peak_memory;
use ldm_train::{Event, Finished, RunConfig, RunDir, Trainer};
use tch::Device;

use super::config::Budget;
use super::results::Training;
use crate::commands::train;
use crate::interrupt::Stop;
use crate::progress::Printer;
use crate::report::Interrupted;

/// Steps of a trial that are not timed: libtorch takes its memory in them.
const WARM_UP: u64 = 5;
/// How long a trial is timed, at least.
const TRIAL: f64 = 8.;

/// How often a run writes a checkpoint.
#[derive(Debug, Clone, Copy)]
pub(super) struct Points(pub(super) u64);

/// What a trained run left.
pub(super) struct Trained {
    pub(super) config: RunConfig,
    pub(super) training: Training,
}

/// Trains what `config` says in the folder `root`, and shows `seen` every checkpoint that was due; it says what went wrong
/// with it, and the run stops.
pub(super) fn train(
    config: &Path,
    root: &Path,
    budget: Budget,
    Points(points): Points,
    (device, stop, printer): (Device, &Stop, Printer),
    seen: &mut dyn FnMut(&Moment) -> anyhow::Result<()>,
) -> anyhow::Result<Trained> {
    let mut trainer = match open(root, device)? {
        Some(trainer) => trainer,
        None => create(config, root, budget, points, (device, stop, printer))?,
    };
    let config = RunConfig::read(trainer.run_dir().config(), &[])?;
    let every = config.train.checkpoint_every;
    let model = trainer.run_dir().model();
    let (metrics, total) = (trainer.run_dir().metrics(), config.train.steps);
    let due = |step: u64| step > 0 && (step == total || step.is_multiple_of(every));
    let mut moment = |step: u64| {
        let line = last_line(&metrics)?;
        let number = |key: &str| line[key].as_f64().unwrap_or(0.);
        let (images, seconds) = (number("images") as u64, number("seconds"));
        seen(&Moment { step, images, seconds, model: &model })
    };
    // A run that was killed between a checkpoint and its measurement.
    if due(trainer.state().step) {
        moment(trainer.state().step)?;
    }
    let (halt, mut failed, mut step) = (AtomicBool::new(false), None, trainer.state().step);
    let finished = train::train_and(&mut trainer, &halt, printer, &mut |event| {
        match event {
            Event::Step { step: done, .. } => step = *done,
            // Also of a run that is asked to stop: it takes one more step before it does, and this one would be lost.
            Event::Checkpoint(_) if due(step) && failed.is_none() => failed = moment(step).err(),
            _ => {}
        }
        if stop.flag().load(Ordering::SeqCst) || failed.is_some() {
            halt.store(true, Ordering::SeqCst);
        }
    })?;
    if let Some(error) = failed {
        return Err(error);
    }
    if finished == Finished::Stopped {
        return Err(Interrupted(stop.code()).into());
    }
    let line = last_line(trainer.run_dir().metrics().as_path())?;
    let (images, seconds) = (line["images"].as_u64().unwrap_or(0), line["seconds"].as_f64().unwrap_or(0.));
    let training = Training {
        parameters: trainer.parameters(),
        steps: total,
        images,
        seconds,
        images_per_second: images as f64 / seconds.max(1e-9),
        peak_memory: peak_memory(device),
    };
    Ok(Trained { config, training })
}

/// A checkpoint that was due.
pub(super) struct Moment<'a> {
    pub(super) step: u64,
    pub(super) images: u64,
    /// Of training alone.
    pub(super) seconds: f64,
    /// The folder that is handed on, as it stands.
    pub(super) model: &'a Path,
}

/// A run that was begun; one that has no checkpoint yet is begun again.
fn open(root: &Path, device: Device) -> anyhow::Result<Option<Trainer>> {
    if !root.exists() {
        return Ok(None);
    }
    if RunDir::open(root).is_ok_and(|run| run.newest_checkpoint().is_ok()) {
        return Ok(Some(Trainer::resume(root, &[], device)?));
    }
    std::fs::remove_dir_all(root).with_context(|| root.display().to_string())?;
    Ok(None)
}

fn create(
    config: &Path,
    root: &Path,
    budget: Budget,
    points: u64,
    (device, stop, printer): (Device, &Stop, Printer),
) -> anyhow::Result<Trainer> {
    let plain = RunConfig::read(config, &[])?;
    let batch = plain.data.batch_size as u64 * plain.train.accumulate;
    let steps = budget.steps(batch, || rate(config, &root.with_extension("trial"), device, stop))?;
    printer.say(&format!("{steps} steps of {batch} images"));
    // A checkpoint falls on a line of the log, which says what the training took so far.
    let every = steps.div_ceil(points);
    let log = plain.train.log_every.min(every);
    let overrides = [
        format!("train.steps={steps}"),
        format!("train.log_every={log}"),
        format!("train.checkpoint_every={}", every.next_multiple_of(log)),
    ];
    Ok(Trainer::create(RunConfig::read(config, &overrides)?, root, device)?)
}

/// Steps a second, by a short trial.
fn rate(config: &Path, scratch: &Path, device: Device, stop: &Stop) -> anyhow::Result<f64> {
    let clear = || match std::fs::remove_dir_all(scratch) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            Err(error).with_context(|| scratch.display().to_string())
        }
        _ => Ok(()),
    };
    clear()?;
    // A line of the log waits for the device.
    let plain = ["train.checkpoint_every=1000000", "train.log_every=5", "train.samples.count=0"];
    let config = RunConfig::read(config, &plain.map(String::from))?;
    let mut trainer = Trainer::create(config, scratch, device)?;
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
        if timed.1 > TRIAL || stop.flag().load(Ordering::SeqCst) {
            halt.store(true, Ordering::SeqCst);
        }
    })?;
    drop(trainer);
    clear()?;
    if stop.signal().is_some() {
        return Err(Interrupted(stop.code()).into());
    }
    if timed.0 == 0 {
        bail!("{}: ended before a step could be timed", scratch.display());
    }
    Ok(timed.0 as f64 / timed.1)
}

/// The last line of training in `metrics.jsonl`.
fn last_line(path: &Path) -> anyhow::Result<serde_json::Value> {
    let text = std::fs::read_to_string(path).with_context(|| path.display().to_string())?;
    let lines = text.lines().rev().filter_map(|line| serde_json::from_str::<serde_json::Value>(line).ok());
    lines
        .into_iter()
        .find(|line| line.get("seconds").is_some())
        .with_context(|| format!("{}: no line of training", path.display()))
}
