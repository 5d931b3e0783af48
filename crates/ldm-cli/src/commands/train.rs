//! `ldm train`.

use std::path::PathBuf;

use anyhow::Context;
use ldm_core::device::device_name;
use ldm_train::{Event, Finished, RunConfig, Trainer};

use crate::args::TrainArgs;
use crate::interrupt::Stop;
use crate::model;
use crate::progress::{Progress, Talk};
use crate::report::Interrupted;

pub(crate) fn run(args: &TrainArgs, talk: Talk) -> anyhow::Result<()> {
    let device = model::device(&args.device, Some(talk))?;
    let stop = Stop::on_signals()?;
    let mut trainer = if let Some(run) = &args.resume {
        Trainer::resume(run, &[], device)?
    } else {
        let path = args.config.as_ref().context("a config, or --resume")?;
        let mut overrides = args.overrides.clone();
        if args.strict {
            overrides.push("data.params.strict=true".into());
        }
        let config = RunConfig::read(path, &overrides)?;
        let run = args.run.clone().unwrap_or_else(|| {
            PathBuf::from("runs").join(path.file_stem().unwrap_or(std::ffi::OsStr::new("run")))
        });
        Trainer::create(config, &run, device)?
    };
    let millions = trainer.parameters() as f64 / 1e6;
    talk.say(&format!(
        "{}: {millions:.2} M parameters on {}, from step {}",
        trainer.run_dir().root().display(),
        device_name(device),
        trainer.state().step
    ));
    let finished = train(&mut trainer, &stop, talk)?;
    if finished == Finished::Stopped {
        let run = trainer.run_dir().root().display().to_string();
        talk.say(&format!("stopped; go on with: ldm train --resume {run}"));
        return Err(Interrupted(stop.code()).into());
    }
    println!("{}", trainer.run_dir().model().display());
    Ok(())
}

/// Trains with a bar beside it.
pub(crate) fn train(trainer: &mut Trainer, stop: &Stop, talk: Talk) -> anyhow::Result<Finished> {
    let (mut progress, mut caching): (Option<Progress>, Option<Progress>) = (None, None);
    let start = trainer.state().step;
    let finished = trainer.run(stop.flag(), &mut |event| match event {
        Event::Caching { done, of } => {
            let bar = caching.get_or_insert_with(|| talk.bar(of as u64, 0));
            bar.message("pictures encoded".into());
            bar.at(done as u64);
            if done == of {
                caching.take().into_iter().for_each(Progress::finish);
            }
        }
        Event::Step { step, steps } => {
            progress.get_or_insert_with(|| talk.bar(steps, start)).at(step);
        }
        Event::Logged(line) => {
            let loss = line.get("rec_loss").or_else(|| line.get("loss")).copied().unwrap_or(f64::NAN);
            let rate = line.get("images_per_second").copied().unwrap_or(0.);
            if let Some(progress) = &mut progress {
                progress.message(format!("loss {loss:.4} {rate:.0} images/s"));
            }
        }
        Event::Validated(numbers) => {
            let words: Vec<String> = numbers
                .iter()
                .filter(|(name, _)| *name != "step")
                .map(|(name, value)| format!("{name} {value:.4}"))
                .collect();
            let text = format!("step {}: {}", numbers.get("step").copied().unwrap_or(0.), words.join(", "));
            progress.as_ref().map_or_else(|| talk.say(&text), |progress| progress.line(&text));
        }
        Event::Checkpoint(path) | Event::Sample(path) => talk.detail(&path.display().to_string()),
        Event::Note(note) => Talk::warn(note),
        Event::Skipped(why) => Talk::warn(&format!("left out: {why}")),
    });
    if let Some(progress) = progress {
        progress.finish();
    }
    Ok(finished?)
}
