//! `ldm sample`.

use clap::Args;

use super::{ClassifierArgs, GenerateArgs, ModelArgs};

#[derive(Debug, Args)]
pub(crate) struct SampleArgs {
    #[command(flatten)]
    pub(crate) model: ModelArgs,
    /// Class, by number or name; the images cycle through a comma-separated list.
    #[arg(long, value_delimiter = ',')]
    pub(crate) class: Vec<String>,
    #[command(flatten)]
    pub(crate) classifier: ClassifierArgs,
    #[command(flatten)]
    pub(crate) generate: GenerateArgs,
}
