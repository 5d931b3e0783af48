//! `ldm data`.

use std::path::PathBuf;

use clap::{Args, Subcommand};

#[derive(Debug, Subcommand)]
pub(crate) enum DataCommand {
    /// Counts, sizes, classes, captions, and bad files by name.
    #[command(after_help = "Example:\n  ldm data info photos.tar")]
    Info {
        #[command(flatten)]
        data: DataArgs,
        /// One JSON document.
        #[arg(long)]
        json: bool,
    },
    /// A contact sheet as the model sees it.
    #[command(after_help = "Example:\n  ldm data preview photos.tar --size 128 --out grid.png")]
    Preview {
        #[command(flatten)]
        data: DataArgs,
        /// Output file.
        #[arg(long)]
        out: PathBuf,
        /// Images on it.
        #[arg(short = 'n', long, default_value_t = 32)]
        num_images: usize,
        /// Replace an existing file.
        #[arg(long)]
        force: bool,
    },
}

#[derive(Debug, Args)]
pub(crate) struct DataArgs {
    /// A folder, a .tar or .tar.gz, `scenes`, or a config whose training set it is.
    pub(crate) dataset: PathBuf,
    /// Prepare images at this size (smallest side resized, center cropped).
    #[arg(long)]
    pub(crate) size: Option<u32>,
    /// Fail on the first unreadable image.
    #[arg(long)]
    pub(crate) strict: bool,
}
