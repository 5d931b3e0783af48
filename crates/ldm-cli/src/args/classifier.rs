//! Guidance by a classifier.

use std::path::PathBuf;

use clap::Args;

#[derive(Debug, Args)]
pub(crate) struct ClassifierArgs {
    /// A classifier of the model's noisy latents, as `ldm train` makes one: leads the images to --class, also those of
    /// an unconditional model. A run directory, a model folder, or a checkpoint file with its config beside it.
    #[arg(long, value_name = "PATH")]
    pub(crate) classifier: Option<PathBuf>,
    /// How strongly it leads; 1 where absent.
    #[arg(long, value_name = "S")]
    pub(crate) classifier_scale: Option<f64>,
}
