//! `ldm redo`.

use std::path::PathBuf;

use clap::Args;

#[derive(Debug, Args)]
pub(crate) struct RedoArgs {
    /// A PNG written by ldm, or by AUTOMATIC1111's web UI.
    pub(crate) image: PathBuf,
    /// Options of the command that made it, in place of those in the image: --model PATH, --seed 7, --out DIR.
    #[arg(trailing_var_arg = true, allow_hyphen_values = true, value_name = "OPTION")]
    pub(crate) options: Vec<String>,
}
