//! A part of a study in a process of its own: what it takes of memory is its own, and the GPU is free after it.

use std::process::Command;

use anyhow::{Context, bail};

use super::Work;
use super::layout::Part;
use crate::args::DeviceArgs;
use crate::launch::{self, how};

/// Runs `part`, and waits; a signal is passed on.
pub(super) fn run(work: &Work, part: Part, device: &DeviceArgs) -> anyhow::Result<()> {
    let mut command = Command::new(std::env::current_exe()?);
    command.args(["compare-f", "--resume"]).arg(work.folder.root()).args(["--part", &part.name()]);
    command.args(["--device", &device.device]);
    if let Some(threads) = device.threads {
        command.args(["--threads", &threads.to_string()]);
    }
    command.args(work.printer.words());
    let status = launch::Part::start(command)?.wait(work.stop).with_context(|| part.title())?;
    if work.stopped() {
        let root = work.folder.root().display();
        work.printer.say(&format!("stopped; go on with: ldm compare-f --resume {root}"));
        return Err(work.interrupted());
    }
    if !status.success() {
        bail!(
            "{} {}; go on with: ldm compare-f --resume {}",
            part.title(),
            how(status),
            work.folder.root().display()
        );
    }
    if !work.folder.done(part).exists() {
        bail!("{} ended and left no numbers", part.title());
    }
    Ok(())
}
