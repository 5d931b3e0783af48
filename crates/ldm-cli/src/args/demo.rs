//! `ldm demo`.

use std::path::PathBuf;

use clap::Args;

use super::DeviceArgs;

#[derive(Debug, Args)]
pub(crate) struct DemoArgs {
    /// Output folder.
    #[arg(long, default_value = "outputs/demo")]
    pub(crate) out: PathBuf,
    /// Replace an existing demo.
    #[arg(long)]
    pub(crate) force: bool,
    /// Override a value of the first stage's config.
    #[arg(long = "first-stage", value_name = "KEY=VALUE")]
    pub(crate) first_stage: Vec<String>,
    /// Override a value of the diffusion model's config.
    #[arg(long = "diffusion", value_name = "KEY=VALUE")]
    pub(crate) diffusion: Vec<String>,
    #[command(flatten)]
    pub(crate) device: DeviceArgs,
}
