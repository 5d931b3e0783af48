//! Flags of classifier guidance.

use std::path::PathBuf;

use clap::Args;

use super::numbers::finite;

#[derive(Debug, Args)]
pub(crate) struct ClassifierArgs {
    /// Guide the samples toward --class by a classifier of noisy latents, trained by `ldm train`; the model may be
    /// unconditional. A run directory, a model folder, or a checkpoint file with its config next to it.
    #[arg(long, value_name = "PATH")]
    pub(crate) classifier: Option<PathBuf>,
    /// Scale of classifier guidance. Default: 1.
    #[arg(long, value_name = "S", value_parser = finite, allow_hyphen_values = true)]
    pub(crate) classifier_scale: Option<f64>,
}
