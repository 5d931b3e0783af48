//! `ldm train`.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use anyhow::{Context, bail};
use clap::CommandFactory;
use clap::error::ErrorKind;
use ldm_core::device::device_name;
use ldm_libtorch::RankEnv;
use ldm_train::{Distributed, Event, Finished, RunConfig, Trainer};
use tch::Device;

use crate::args::{Cli, DeviceArgs, TrainArgs};
use crate::interrupt::Stop;
use crate::progress::{Printer, Progress};
use crate::report::Interrupted;
use crate::terminal::outln;
use crate::{launch, model};

pub(crate) fn run(args: &TrainArgs, printer: Printer) -> anyhow::Result<()> {
    let stop = Stop::on_signals()?;
    let env = RankEnv::read()?;
    if let (Some(count @ 2..), None) = (args.nproc, &env) {
        check_device(&args.device, count.into())?;
        return launch::launch(count.into(), &stop, printer);
    }
    let (device, ranks, printer) = match &env {
        Some(env) => {
            launch::exit_with_launcher();
            let device = rank_device(env, &args.device)?;
            let printer = if env.rank == 0 { printer } else { Printer::new(true, false) };
            (device, Distributed::connect(env, device)?, printer)
        }
        None => (model::device(&args.device, Some(printer))?, Distributed::default(), printer),
    };
    let (is_rank_zero, world) = (ranks.is_rank_zero(), ranks.world_size());
    let mut trainer = if let Some(run) = &args.resume {
        let overrides = [resume_overrides(args), flag_overrides(args)].concat();
        Trainer::resume_distributed(ranks, run, &overrides, device)?
    } else {
        let path = args.config.as_ref().context("expected a config or --resume, got neither")?;
        let overrides = [args.overrides.clone(), flag_overrides(args)].concat();
        let config = RunConfig::read(path, &overrides)?;
        let run = args.run.clone().unwrap_or_else(|| {
            PathBuf::from("runs").join(path.file_stem().unwrap_or(std::ffi::OsStr::new("run")))
        });
        Trainer::create_distributed(ranks, config, &run, device)?
    };
    trainer.checkpoint_on(Arc::clone(stop.checkpoint()));
    let millions = trainer.parameters() as f64 / 1e6;
    let several = if world > 1 { format!(", {world} ranks") } else { String::new() };
    printer.say(&format!(
        "{}: {millions:.2} M parameters on {}{several}, from step {}",
        trainer.run_dir().root().display(),
        device_name(device),
        trainer.state().step
    ));
    let finished = train(&mut trainer, &stop, printer)?;
    trainer.train_step().distributed().close()?;
    if finished == Finished::Stopped {
        let run = trainer.run_dir().root().display().to_string();
        let nproc = if world > 1 { format!(" --nproc {world}") } else { String::new() };
        printer.say(&format!("stopped; resume with: ldm train --resume {run}{nproc}"));
        return Err(Interrupted(stop.code()).into());
    }
    if is_rank_zero {
        outln!("{}", trainer.run_dir().model().display())?;
    }
    Ok(())
}

/// The overrides of a resumed run: every word, since it takes no config.
fn resume_overrides(args: &TrainArgs) -> Vec<String> {
    let config = args.config.iter().map(|word| word.to_string_lossy().into_owned());
    let words: Vec<String> = config.chain(args.overrides.iter().cloned()).collect();
    if let Some(word) = words.iter().find(|word| !word.contains('=')) {
        let message = format!("--resume: expected KEY=VALUE beside it, got {word}");
        let mut command = Cli::command();
        command.build();
        let train = command.find_subcommand_mut("train").expect("the running command");
        train.error(ErrorKind::ArgumentConflict, message).exit()
    }
    words
}

/// The flags that are keys of the config, so that a resumed run has them too.
fn flag_overrides(args: &TrainArgs) -> Vec<String> {
    let flags = [(args.strict, "data.params.strict=true"), (args.device.tf32, "train.tf32=true")];
    flags.into_iter().filter(|(given, _)| *given).map(|(_, key)| key.to_owned()).collect()
}

/// Checks that several ranks do not share a GPU.
fn check_device(args: &DeviceArgs, ranks: usize) -> anyhow::Result<()> {
    if args.device.starts_with("cuda:") {
        bail!("--device: expected cuda for {ranks} ranks, which use one GPU each, got {}", args.device);
    }
    Ok(())
}

/// Returns the device of a rank: on CUDA the GPU of its local rank.
fn rank_device(env: &RankEnv, args: &DeviceArgs) -> anyhow::Result<Device> {
    if env.world > 1 {
        check_device(args, env.world)?;
    }
    let cuda = args.device == "cuda" || (args.device == "auto" && ldm_libtorch::cuda_device_count() > 0);
    let name = if cuda { format!("cuda:{}", env.local_rank) } else { args.device.clone() };
    model::device(&DeviceArgs { device: name, ..args.clone() }, None)
}

/// Trains with a progress bar.
pub(crate) fn train(trainer: &mut Trainer, stop: &Stop, printer: Printer) -> anyhow::Result<Finished> {
    train_and(trainer, stop.flag(), printer, &mut |_| {})
}

/// [`train`] until `stop` is set, with another observer that is called first.
pub(crate) fn train_and(
    trainer: &mut Trainer,
    stop: &AtomicBool,
    printer: Printer,
    also: &mut dyn FnMut(&Event),
) -> anyhow::Result<Finished> {
    let (mut progress, mut caching): (Option<Progress>, Option<Progress>) = (None, None);
    let start = trainer.state().step;
    let mut show = |event: Event| match event {
        Event::Caching { done, of } => {
            let bar = caching.get_or_insert_with(|| printer.bar(of as u64, 0));
            bar.message("images encoded".into());
            bar.at(done as u64);
            if done == of {
                caching.take().into_iter().for_each(Progress::finish);
            }
        }
        Event::Step { step, steps } => {
            progress.get_or_insert_with(|| printer.bar(steps, start)).at(step);
        }
        Event::Logged(line) => {
            let loss = line.get("rec_loss").or_else(|| line.get("loss")).copied().unwrap_or(f64::NAN);
            let rate = line.get("images_per_second").copied().unwrap_or(0.);
            if let Some(progress) = &mut progress {
                progress.message(format!("loss {loss:.4} {rate:.0} images/s"));
            }
        }
        Event::Validated(numbers) => {
            let metrics: Vec<String> = numbers
                .iter()
                .filter(|(name, _)| *name != "step")
                .map(|(name, value)| format!("{name} {value:.4}"))
                .collect();
            let text = format!("step {}: {}", numbers.get("step").copied().unwrap_or(0.), metrics.join(", "));
            progress.as_ref().map_or_else(|| printer.say(&text), |progress| progress.line(&text));
        }
        Event::Checkpoint(path) | Event::Sample(path) => printer.detail(&path.display().to_string()),
        Event::Note(note) => Printer::warn(note),
        Event::Skipped(why) => Printer::warn(&format!("skipped: {why}")),
    };
    let finished = trainer.run(stop, &mut |event| {
        also(&event);
        show(event);
    });
    if let Some(progress) = progress {
        progress.finish();
    }
    Ok(finished?)
}
