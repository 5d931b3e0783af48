//! Arguments of the commands that generate from images, maps and boxes.

use std::path::PathBuf;

use clap::Args;

use super::{GenerateArgs, ModelArgs, SizeArgs, TextArgs, unit_interval};

#[derive(Debug, Args)]
pub(crate) struct Img2imgArgs {
    /// Input image, or a folder of images, each of which is sampled alike.
    pub(crate) image: PathBuf,
    /// Text prompt.
    pub(crate) prompt: String,
    /// Denoising strength: at 0.75, 37 of 50 steps run; at 1 nothing of the image is left.
    #[arg(long, default_value_t = 0.75, value_parser = unit_interval, allow_hyphen_values = true)]
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
    /// Input image, or a folder of images, each of which is sampled alike.
    pub(crate) image: PathBuf,
    /// Mask as large as the image: the area that is white (at least 50 % gray) is filled, or of a mask
    /// with transparent pixels the area that is opaque. Of a folder the mask NAME.png or
    /// NAME_mask.png of each image.
    pub(crate) mask: PathBuf,
    /// Text prompt, for text-conditional models.
    pub(crate) prompt: Option<String>,
    /// Resize the mask to the size of the image (nearest neighbor).
    #[arg(long)]
    pub(crate) resize_mask: bool,
    #[command(flatten)]
    pub(crate) size: SizeArgs,
    /// Denoising strength inside the mask, for models that are not trained for inpainting.
    #[arg(long, value_parser = unit_interval, allow_hyphen_values = true)]
    pub(crate) strength: Option<f64>,
    #[command(flatten)]
    pub(crate) fill: FillArgs,
}

#[derive(Debug, Args)]
pub(crate) struct OutpaintArgs {
    /// Input image, or a folder of images, each of which is sampled alike.
    pub(crate) image: PathBuf,
    /// Text prompt, for text-conditional models.
    pub(crate) prompt: Option<String>,
    /// Pixels to add on the left.
    #[arg(long, value_name = "PIXELS", default_value_t = 0, value_parser = clap::value_parser!(u32).range(..=16384))]
    pub(crate) left: u32,
    /// Pixels to add on the right.
    #[arg(long, value_name = "PIXELS", default_value_t = 0, value_parser = clap::value_parser!(u32).range(..=16384))]
    pub(crate) right: u32,
    /// Pixels to add at the top.
    #[arg(long, value_name = "PIXELS", default_value_t = 0, value_parser = clap::value_parser!(u32).range(..=16384))]
    pub(crate) top: u32,
    /// Pixels to add at the bottom.
    #[arg(long, value_name = "PIXELS", default_value_t = 0, value_parser = clap::value_parser!(u32).range(..=16384))]
    pub(crate) bottom: u32,
    #[command(flatten)]
    pub(crate) size: SizeArgs,
    #[command(flatten)]
    pub(crate) fill: FillArgs,
}

/// Flags that inpainting and outpainting share.
#[derive(Debug, Args)]
pub(crate) struct FillArgs {
    /// Blend the filled area into the image over this many pixels inside the mask.
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
    /// Low-resolution image, or a folder of them.
    pub(crate) image: PathBuf,
    #[command(flatten)]
    pub(crate) model: ModelArgs,
    #[command(flatten)]
    pub(crate) generate: GenerateArgs,
}

#[derive(Debug, Args)]
pub(crate) struct Layout2imgArgs {
    /// Labeled boxes: `{"boxes": [{"label": "fish", "box": [x, y, width, height]}]}`, as fractions of the image, or in
    /// pixels with the image's `"width"` and `"height"`; or COCO annotations.
    pub(crate) layout: PathBuf,
    /// File name of one image of COCO annotations. Default: all images.
    #[arg(long, value_name = "NAME")]
    pub(crate) image: Option<String>,
    #[command(flatten)]
    pub(crate) model: ModelArgs,
    #[command(flatten)]
    pub(crate) generate: GenerateArgs,
}

#[derive(Debug, Args)]
pub(crate) struct Semantic2imgArgs {
    /// Semantic map: a PNG whose gray values or palette indices are classes, or whose colors are, with --palette.
    pub(crate) map: PathBuf,
    /// Palette: a JSON file whose `classes` have an `id` and a `color` of three values.
    #[arg(long, value_name = "FILE")]
    pub(crate) palette: Option<PathBuf>,
    #[command(flatten)]
    pub(crate) model: ModelArgs,
    #[command(flatten)]
    pub(crate) generate: GenerateArgs,
}
