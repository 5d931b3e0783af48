//! `ldm sample`.

use std::path::PathBuf;

use clap::Args;

use super::{ClassifierArgs, GenerateArgs, ModelArgs};

#[derive(Debug, Args)]
pub(crate) struct SampleArgs {
    /// Keys of the model's config to change, as model.params.parameterization=v.
    #[arg(value_name = "KEY=VALUE")]
    pub(crate) overrides: Vec<String>,
    #[command(flatten)]
    pub(crate) model: ModelArgs,
    /// Class, by number or name; the images cycle through a comma-separated list.
    #[arg(long, value_delimiter = ',')]
    pub(crate) class: Vec<String>,
    /// Low-resolution image or label map of a model conditioned on one and on a class.
    #[arg(long, value_name = "FILE")]
    pub(crate) image: Option<PathBuf>,
    #[command(flatten)]
    pub(crate) classifier: ClassifierArgs,
    #[command(flatten)]
    pub(crate) generate: GenerateArgs,
}
