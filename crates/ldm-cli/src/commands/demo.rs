//! `ldm demo`: both stages on synthetic scenes, and a report.

use anyhow::{Context, bail};
use ldm::EMBEDDED_MODEL;
use ldm_study::demo::{DemoOverrides, demo};
use ldm_train::RunDir;

use crate::args::DemoArgs;
use crate::interrupt::Stop;
use crate::model;
use crate::progress::Printer;
use crate::report::Interrupted;
use crate::reporter::CliReporter;
use crate::terminal::outln;

pub(crate) fn run(args: &DemoArgs, printer: Printer) -> anyhow::Result<()> {
    let device = model::device(&args.device, Some(printer))?;
    let out = &args.out;
    if out.exists() && std::fs::read_dir(out).with_context(|| out.display().to_string())?.next().is_some() {
        if !args.force {
            bail!("{}: expected a new folder, got an existing one; try --force", out.display());
        }
        // Only the demo's own runs: other files in the folder belong to the user.
        let mut runs = ["first-stage", "diffusion"].map(|name| out.join(name)).to_vec();
        runs.retain(|run| run.is_dir());
        runs.iter().try_for_each(|run| RunDir::check_removable(run))?;
        for run in &runs {
            std::fs::remove_dir_all(run).with_context(|| run.display().to_string())?;
        }
    }
    let stop = Stop::on_signals()?;
    let overrides =
        DemoOverrides { first_stage: args.first_stage.clone(), diffusion: args.diffusion.clone() };
    let text_model = EMBEDDED_MODEL.map(|name| ldm::model_path(name.into())).transpose()?;
    match demo(
        out,
        &overrides,
        text_model.as_deref(),
        device,
        stop.flag(),
        &CliReporter::on_signals(printer, &stop),
    )? {
        Some(report) => outln!("{}", report.display())?,
        None => return Err(Interrupted(stop.code()).into()),
    }
    Ok(())
}
