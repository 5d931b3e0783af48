//! Commands that make images of images, maps and boxes.

use std::path::PathBuf;

use clap::Args;

use super::{GenerateArgs, ModelArgs, SizeArgs, TextArgs, unit_interval};

#[derive(Debug, Args)]
pub(crate) struct Img2imgArgs {
    /// The image.
    pub(crate) image: PathBuf,
    /// What it is to show.
    pub(crate) prompt: String,
    /// How much of it is made anew: of 50 steps 0.75 takes 37; 1 leaves nothing of it.
    #[arg(long, default_value_t = 0.75, value_parser = unit_interval)]
    pub(crate) strength: f64,
    #[command(flatten)]
    pub(crate) size: SizeArgs,
    #[command(flatten)]
    pub(crate) text: TextArgs,
    #[command(flatten)]
    pub(crate) model: ModelArgs,
    #[command(flatten)]
    pub(crate) generate: GenerateArgs,
}

#[derive(Debug, Args)]
pub(crate) struct InpaintArgs {
    /// The image.
    pub(crate) image: PathBuf,
    /// White where to fill it, as large as the image; from 50 % gray on.
    pub(crate) mask: PathBuf,
    /// What to fill it with, for models that read text.
    pub(crate) prompt: Option<String>,
    /// Resize the mask to the image, by the nearest pixel.
    #[arg(long)]
    pub(crate) resize_mask: bool,
    #[command(flatten)]
    pub(crate) size: SizeArgs,
    /// How much of what was under the mask is made anew; only for models that are not trained to fill, and are shown the
    /// rest at every step.
    #[arg(long, value_parser = unit_interval)]
    pub(crate) strength: Option<f64>,
    #[command(flatten)]
    pub(crate) fill: FillArgs,
}

#[derive(Debug, Args)]
pub(crate) struct OutpaintArgs {
    /// The image.
    pub(crate) image: PathBuf,
    /// What it goes on with, for models that read text.
    pub(crate) prompt: Option<String>,
    /// Pixels to add at the left.
    #[arg(long, value_name = "PIXELS", default_value_t = 0, value_parser = clap::value_parser!(u32).range(..=16384))]
    pub(crate) left: u32,
    /// Pixels to add at the right.
    #[arg(long, value_name = "PIXELS", default_value_t = 0, value_parser = clap::value_parser!(u32).range(..=16384))]
    pub(crate) right: u32,
    /// Pixels to add above.
    #[arg(long, value_name = "PIXELS", default_value_t = 0, value_parser = clap::value_parser!(u32).range(..=16384))]
    pub(crate) top: u32,
    /// Pixels to add below.
    #[arg(long, value_name = "PIXELS", default_value_t = 0, value_parser = clap::value_parser!(u32).range(..=16384))]
    pub(crate) bottom: u32,
    #[command(flatten)]
    pub(crate) size: SizeArgs,
    #[command(flatten)]
    pub(crate) fill: FillArgs,
}

/// What all commands that fill have in common.
#[derive(Debug, Args)]
pub(crate) struct FillArgs {
    /// Pixels over which what was made fades into the image, on its own side of the border.
    #[arg(long, value_name = "PIXELS", default_value_t = 0)]
    pub(crate) feather: u32,
    #[command(flatten)]
    pub(crate) text: TextArgs,
    #[command(flatten)]
    pub(crate) model: ModelArgs,
    #[command(flatten)]
    pub(crate) generate: GenerateArgs,
}

#[derive(Debug, Args)]
pub(crate) struct UpscaleArgs {
    /// The small image.
    pub(crate) image: PathBuf,
    #[command(flatten)]
    pub(crate) model: ModelArgs,
    #[command(flatten)]
    pub(crate) generate: GenerateArgs,
}

#[derive(Debug, Args)]
pub(crate) struct Layout2imgArgs {
    /// Boxes with labels: `{"boxes": [{"label": "fish", "box": [x, y, width, height]}]}`, parts of the image, or pixels
    /// of its `"width"` and `"height"`; or COCO's annotations.
    pub(crate) layout: PathBuf,
    /// Of COCO's annotations the image of this file name; all of them where absent.
    #[arg(long, value_name = "NAME")]
    pub(crate) image: Option<String>,
    #[command(flatten)]
    pub(crate) model: ModelArgs,
    #[command(flatten)]
    pub(crate) generate: GenerateArgs,
}

#[derive(Debug, Args)]
pub(crate) struct Semantic2imgArgs {
    /// A PNG whose gray values or palette indices are classes; with --palette, of the colors of classes.
    pub(crate) map: PathBuf,
    /// A JSON whose `classes` have an `id` and a `color` of three values.
    #[arg(long, value_name = "FILE")]
    pub(crate) palette: Option<PathBuf>,
    #[command(flatten)]
    pub(crate) model: ModelArgs,
    #[command(flatten)]
    pub(crate) generate: GenerateArgs,
}
