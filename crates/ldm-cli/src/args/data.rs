//! `ldm data`.

use std::path::PathBuf;

use clap::{Args, Subcommand};

use super::numbers::{image_count, input_side};

#[derive(Debug, Subcommand)]
pub(crate) enum DataCommand {
    /// Reports counts, sizes, classes, captions, and unreadable files.
    #[command(after_help = "Example:\n  ldm data info photos.tar")]
    Info {
        #[command(flatten)]
        data: DataArgs,
        /// Print one JSON document.
        #[arg(long)]
        json: bool,
    },
    /// Writes a contact sheet of the data as the model sees it.
    #[command(after_help = "Example:\n  ldm data preview photos.tar --size 128 --out grid.png")]
    Preview {
        #[command(flatten)]
        data: DataArgs,
        /// Output file.
        #[arg(long)]
        out: PathBuf,
        /// Number of images.
        #[arg(short = 'n', long, default_value_t = 32, value_parser = image_count)]
        num_images: usize,
        /// Replace an existing file.
        #[arg(long)]
        force: bool,
    },
}

#[derive(Debug, Args)]
pub(crate) struct DataArgs {
    /// A folder, a .tar, .tar.gz or .zip, `scenes`, or a config with a `data` section.
    pub(crate) dataset: PathBuf,
    /// Resize the smallest side to this size, and crop the center.
    #[arg(long, value_parser = input_side)]
    pub(crate) size: Option<u32>,
    /// Fail on the first unreadable image.
    #[arg(long)]
    pub(crate) strict: bool,
}
