//! `ldm sample`.

use clap::Args;

use super::{ClassifierArgs, GenerateArgs, ModelArgs};

#[derive(Debug, Args)]
pub(crate) struct SampleArgs {
    #[command(flatten)]
    pub(crate) model: ModelArgs,
    /// A class by number or name, or several, taken in turn.
    #[arg(long, value_delimiter = ',')]
    pub(crate) class: Vec<String>,
    #[command(flatten)]
    pub(crate) classifier: ClassifierArgs,
    #[command(flatten)]
    pub(crate) generate: GenerateArgs,
}
