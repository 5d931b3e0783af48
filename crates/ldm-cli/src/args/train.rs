//! `ldm train`.

use std::path::PathBuf;

use clap::Args;

use super::DeviceArgs;

#[derive(Debug, Args)]
pub(crate) struct TrainArgs {
    /// The config of the run.
    #[arg(required_unless_present = "resume", conflicts_with = "resume")]
    pub(crate) config: Option<PathBuf>,
    /// Overrides of config values.
    #[arg(value_name = "KEY=VALUE", conflicts_with = "resume")]
    pub(crate) overrides: Vec<String>,
    /// The folder of the run [default: runs/CONFIG].
    #[arg(long, conflicts_with = "resume")]
    pub(crate) run: Option<PathBuf>,
    /// Resume a run from its newest complete checkpoint.
    #[arg(long, value_name = "DIR")]
    pub(crate) resume: Option<PathBuf>,
    /// Start N ranks on this machine: on CUDA one for each GPU, on the CPU each with its share of the cores. `batch_size` is
    /// that of a rank. Not needed under torchrun.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..))]
    pub(crate) nproc: Option<u16>,
    /// Fail on the first unreadable image.
    #[arg(long)]
    pub(crate) strict: bool,
    #[command(flatten)]
    pub(crate) device: DeviceArgs,
}
