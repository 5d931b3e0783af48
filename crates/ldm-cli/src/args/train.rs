//! `ldm train`.

use std::path::PathBuf;

use clap::Args;

use super::DeviceArgs;

#[derive(Debug, Args)]
pub(crate) struct TrainArgs {
    /// What to train.
    #[arg(required_unless_present = "resume", conflicts_with = "resume")]
    pub(crate) config: Option<PathBuf>,
    /// Values that replace the config's.
    #[arg(value_name = "KEY=VALUE", conflicts_with = "resume")]
    pub(crate) overrides: Vec<String>,
    /// The run's folder; named after the config where absent.
    #[arg(long, conflicts_with = "resume")]
    pub(crate) run: Option<PathBuf>,
    /// Go on with a run from its newest complete checkpoint.
    #[arg(long, value_name = "DIR")]
    pub(crate) resume: Option<PathBuf>,
    /// Start N ranks on this machine: on CUDA one a GPU, on the CPU each with its share of the cores. `batch_size` is a
    /// rank's. Under torchrun there is nothing to start.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..))]
    pub(crate) nproc: Option<u16>,
    /// Fail on the first unreadable image.
    #[arg(long)]
    pub(crate) strict: bool,
    #[command(flatten)]
    pub(crate) device: DeviceArgs,
}
