//! Configuration of stored images.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use crate::image::transform::TransformConfig;
use crate::labels::boxes::BoxesConfig;
use crate::labels::caption_file::CaptionSource;
use crate::labels::imagenet::ImageNetConfig;
use crate::labels::label_maps::LabelMapsConfig;
use crate::source::paired_files::PairedFilesConfig;
use crate::stored::balance::BalanceConfig;
use crate::stored::neighbors_config::NeighborsConfig;
use crate::task::TaskConfig;
use crate::task::inpainting::{InpaintingConfig, Masks};

/// Stored images: paths, selection, labels and preparation.
///
/// `path` is a folder, a `.tar`, a `.tar.gz`, a `.zip` (all four of one layout), a pattern of shards
/// `a-{000..003}.tar`, or a list of these. An image is a file that ends in `.png`, `.jpg`, `.jpeg`, `.webp`, `.bmp`, `.gif`, `.tif` or
/// `.tiff`; the format is detected by content. Where there is none of them, `.npy` files are images, of u8 values
/// `[3, H, W]` or `[H, W, 3]`. Next to `key.png` there may be `key.txt` (a caption per line),
/// `key.cls` (a class by number or name) and `key.json` (`caption`, `class`). Relative paths are
/// looked up by [`DataPaths`](crate::DataPaths).
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ImagesConfig {
    /// Paths of the images.
    #[serde(deserialize_with = "crate::source::one_or_many::one_or_many")]
    pub path: Vec<String>,
    /// A text file of names, one per line, with or without extensions: only these images are used.
    #[serde(default)]
    pub split: Option<PathBuf>,
    /// A text file of names: these images are left out.
    #[serde(default)]
    pub exclude: Option<PathBuf>,
    /// Source of classes. They are numbered before `split` and `exclude`, so that all splits agree.
    #[serde(default)]
    pub classes: ClassSource,
    /// Classes of ImageNet: some of the folders, with other numbers and names.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub imagenet: Option<ImageNetConfig>,
    /// Source of captions.
    #[serde(default)]
    pub captions: CaptionSource,
    /// Labeled boxes of the images; images without enough of them are left out.
    #[serde(default)]
    pub boxes: Option<BoxesConfig>,
    /// Label maps, in files next to the images.
    #[serde(default)]
    pub label_maps: Option<LabelMapsConfig>,
    /// Preparation of the images.
    #[serde(default)]
    pub transform: TransformConfig,
    /// Reads the alpha channel of the images as their fourth channel, for models of 2 or 4 image channels; opaque where
    /// a file has none. Left out, images are RGB.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub alpha: bool,
    /// Condition made of each image.
    #[serde(default)]
    pub task: Option<TaskConfig>,
    /// Precomputed nearest neighbors of each image, for retrieval-augmented models.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub neighbors: Option<NeighborsConfig>,
    /// Draws groups of images equally often in training, whatever their number of images.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub balance: Option<BalanceConfig>,
    /// Assigns whole archives to ranks. Otherwise all ranks share one order over all archives.
    #[serde(default)]
    pub shards_by_rank: bool,
}

/// Source of classes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ClassSource {
    /// From `.cls` or `.json` files if there are any with a class, else from folders if there are any.
    #[default]
    Auto,
    /// From the folders of the images.
    Folders,
    /// From `.cls` or `.json` files next to the images.
    Files,
    /// No classes.
    None,
}

impl ImagesConfig {
    /// Creates the config of all images at `path`, prepared by `transform`.
    pub fn new(path: impl Into<String>, transform: TransformConfig) -> Self {
        Self {
            path: vec![path.into()],
            split: None,
            exclude: None,
            classes: ClassSource::default(),
            imagenet: None,
            captions: CaptionSource::default(),
            boxes: None,
            label_maps: None,
            transform,
            alpha: false,
            task: None,
            neighbors: None,
            balance: None,
            shards_by_rank: false,
        }
    }

    /// The mask files of the task, where it has any.
    pub(crate) fn mask_files(&self) -> Option<&PairedFilesConfig> {
        match &self.task {
            Some(TaskConfig::Inpainting(InpaintingConfig { masks: Masks::Files(files) })) => Some(files),
            _ => None,
        }
    }
}
