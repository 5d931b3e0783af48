//! `ldm train`.

use std::path::PathBuf;

use clap::Args;

use super::DeviceArgs;

#[derive(Debug, Args)]
pub(crate) struct TrainArgs {
    /// Config of the run.
    #[arg(required_unless_present = "resume")]
    pub(crate) config: Option<PathBuf>,
    /// Overrides of config values. With --resume only of steps, learning rate, intervals, checkpoints to keep, samples
    /// and loader threads; they become part of the run's config.
    #[arg(value_name = "KEY=VALUE")]
    pub(crate) overrides: Vec<String>,
    /// Run directory. Default: runs/CONFIG.
    #[arg(long, conflicts_with = "resume")]
    pub(crate) run: Option<PathBuf>,
    /// Resume a run from its newest complete checkpoint, or from RUN/checkpoints/step-N; later checkpoints are then
    /// renamed.
    #[arg(long, value_name = "RUN")]
    pub(crate) resume: Option<PathBuf>,
    /// Start N ranks on this machine: one per GPU on CUDA; on the CPU they share the cores. `batch_size` is per rank.
    /// Not needed under torchrun.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..))]
    pub(crate) nproc: Option<u16>,
    /// Fail on the first unreadable image.
    #[arg(long)]
    pub(crate) strict: bool,
    #[command(flatten)]
    pub(crate) device: DeviceArgs,
}
