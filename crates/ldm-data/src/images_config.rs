//! The config of a set of stored images.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use crate::boxes::BoxesConfig;
use crate::caption_file::CaptionSource;
use crate::inpainting::{InpaintingConfig, Masks};
use crate::label_maps::LabelMapsConfig;
use crate::paired_files::PairedFilesConfig;
use crate::task::TaskConfig;
use crate::transform::TransformConfig;

/// Where images lie, which of them count, and how they are prepared.
///
/// `path` is a folder, a `.tar`, a `.tar.gz` (all three of one layout), a pattern of shards `a-{000..003}.tar`, or a
/// list of these. An image is a file that ends in `.png`, `.jpg`, `.jpeg`, `.webp`, `.bmp`, `.gif`, `.tif` or
/// `.tiff`; what it is, its content says. Next to `key.png` there may be `key.txt` (a caption a line),
/// `key.cls` (a class by number or name) and `key.json` (`caption`, `class`). Relative paths are
/// looked up as [`DataPaths`](crate::DataPaths) says.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ImagesConfig {
    /// Where they lie.
    #[serde(deserialize_with = "crate::config::one_or_many")]
    pub path: Vec<String>,
    /// A text file of names, one a line, with or without their endings: only these count.
    #[serde(default)]
    pub split: Option<PathBuf>,
    /// A text file of names: these do not count.
    #[serde(default)]
    pub exclude: Option<PathBuf>,
    /// Where classes come from. They are numbered before `split` and `exclude`, so that all splits agree.
    #[serde(default)]
    pub classes: ClassSource,
    /// Where captions come from.
    #[serde(default)]
    pub captions: CaptionSource,
    /// Labeled boxes of the images; those without enough of them do not count.
    #[serde(default)]
    pub boxes: Option<BoxesConfig>,
    /// What each pixel shows, in files beside the images.
    #[serde(default)]
    pub label_maps: Option<LabelMapsConfig>,
    /// How images are prepared.
    #[serde(default)]
    pub transform: TransformConfig,
    /// What is to be learned of an image beside the image: a condition made of it.
    #[serde(default)]
    pub task: Option<TaskConfig>,
    /// Whether each rank reads archives of its own, whole ones. Otherwise all ranks share one order over all of them.
    #[serde(default)]
    pub shards_by_rank: bool,
}

/// Where classes come from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ClassSource {
    /// From `.cls` or `.json` files if there are any with a class, else from folders if there are any.
    #[default]
    Auto,
    /// From the folders images lie in.
    Folders,
    /// From `.cls` or `.json` files beside the images.
    Files,
    /// There are none.
    None,
}

impl ImagesConfig {
    /// Everything at `path`, prepared by `transform`.
    pub fn new(path: impl Into<String>, transform: TransformConfig) -> Self {
        Self {
            path: vec![path.into()],
            split: None,
            exclude: None,
            classes: ClassSource::default(),
            captions: CaptionSource::default(),
            boxes: None,
            label_maps: None,
            transform,
            task: None,
            shards_by_rank: false,
        }
    }

    /// The masks that are given, where the task has any.
    pub(crate) fn mask_files(&self) -> Option<&PairedFilesConfig> {
        match &self.task {
            Some(TaskConfig::Inpainting(InpaintingConfig { masks: Masks::Files(files) })) => Some(files),
            _ => None,
        }
    }
}
