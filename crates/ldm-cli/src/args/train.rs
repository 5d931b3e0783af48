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
    /// Fail on the first unreadable picture.
    #[arg(long)]
    pub(crate) strict: bool,
    #[command(flatten)]
    pub(crate) device: DeviceArgs,
}
