//! `ldm compare-f`: the study of the downsampling factor (paper §4.1) on any data and budget.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, bail};
use ldm_study::study::{Study, StudyDir, StudyFile, StudyPart};
use ldm_train::{Finished, exit_text};

use crate::args::{CompareFArgs, DeviceArgs};
use crate::interrupt::Stop;
use crate::launch;
use crate::model;
use crate::progress::Printer;
use crate::report::Interrupted;
use crate::reporter::CliReporter;
use crate::terminal::outln;

pub(crate) fn run(args: &CompareFArgs, printer: Printer) -> anyhow::Result<()> {
    let device = model::device(&args.device, Some(printer))?;
    let stop = Stop::on_signals()?;
    let folder = match &args.resume {
        Some(root) => StudyDir::open(root)?,
        None => create(args)?,
    };
    let reporter = CliReporter::on_signals(printer, &stop);
    let study = Study::open(folder, device, stop.flag(), &reporter)?;
    if let Some(name) = &args.part {
        launch::exit_with_launcher();
        return match study.run_part(StudyPart::parse(name)?)? {
            Finished::Done => Ok(()),
            Finished::Stopped => Err(Interrupted(stop.code()).into()),
        };
    }
    let root = study.folder().root().to_path_buf();
    let resume = format!("ldm compare-f --resume {}", root.display());
    match study.run(|part| spawn(&root, part, args, &stop, printer, &resume))? {
        Finished::Done => outln!("{}", study.folder().path("report.html").display())?,
        Finished::Stopped => {
            printer.say(&format!("stopped; resume with: {resume}"));
            return Err(Interrupted(stop.code()).into());
        }
    }
    Ok(())
}

/// Creates the folder of a new study.
fn create(args: &CompareFArgs) -> anyhow::Result<StudyDir> {
    let (overrides, files): (Vec<String>, Vec<String>) =
        args.words.iter().cloned().partition(|word| word.contains('='));
    let (text, path, name) = match (&files[..], args.profile) {
        ([file], None) => {
            let path = PathBuf::from(file);
            let name = path.file_stem().unwrap_or_default().to_string_lossy().into_owned();
            (ldm_core::text::read(&path)?, path, name)
        }
        ([], Some(profile)) => {
            let profile = profile.profile();
            (profile.text().into(), format!("{}.yaml", profile.name()).into(), profile.name().into())
        }
        ([], None) => bail!("expected a study file or --profile, got neither"),
        _ => bail!("expected one study file or --profile, got several"),
    };
    let root = args.out.clone().unwrap_or_else(|| PathBuf::from("runs").join(format!("compare-f-{name}")));
    let file = StudyFile::parse(&text, &path, &overrides)?;
    Ok(StudyDir::create(&root, &path, &file)?)
}

/// Runs a part in its own process, which frees its memory and the GPU at its end.
fn spawn(
    root: &Path,
    part: StudyPart,
    args: &CompareFArgs,
    stop: &Stop,
    printer: Printer,
    resume: &str,
) -> anyhow::Result<Finished> {
    let mut command = Command::new(std::env::current_exe()?);
    command.args(["compare-f", "--resume"]).arg(root).args(["--part", &part.name()]);
    let DeviceArgs { device, kernels, tf32, .. } = &args.device;
    command.args(["--device", device, "--kernels", kernels]).args(tf32.then_some("--tf32"));
    if let Some(threads) = args.device.threads {
        command.args(["--threads", &threads.to_string()]);
    }
    command.args(printer.flags());
    let status = launch::run(command, stop).with_context(|| part.title())?;
    if stop.signal().is_some() {
        return Ok(Finished::Stopped);
    }
    if !status.success() {
        bail!("{} {}; resume with: {resume}", part.title(), exit_text(status));
    }
    Ok(Finished::Done)
}
