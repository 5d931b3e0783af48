//! Real images or their statistics, to compare generated images with.

use std::path::PathBuf;
use std::sync::Arc;

use ldm_core::{Error, Result};
use ldm_data::{Dataset, DatasetConfig, Resize, TransformConfig};
use ldm_metrics::SetMoments;
use ldm_train::DataModule;
use ldm_weights::sha256;
use serde_json::{Map, Value, json};

use super::image_set::{self, ImageSource, SetOptions};

/// The resizer of images that keep their size.
pub(super) const UNCHANGED: &str = "none";

/// Real images, or the statistics of their features.
pub struct ReferenceSet {
    pub(super) source: ImageSource,
    pub(super) content: ReferenceContent,
}

pub(super) enum ReferenceContent {
    Images(Arc<dyn Dataset>),
    Moments(PathBuf, SetMoments),
}

impl ReferenceSet {
    /// Opens images, or an `.npz` of statistics.
    ///
    /// # Errors
    /// When they cannot be read, or have several sizes and `size` is absent.
    pub fn open(source: ImageSource) -> Result<Self> {
        let path = &source.path;
        if path.extension().is_some_and(|extension| extension == "npz") {
            let content = ReferenceContent::Moments(path.clone(), SetMoments::read_npz(path)?);
            return Ok(Self { source, content });
        }
        let data = image_set::open(&source)?;
        if !image_set::is_config(path) {
            image_set::check_sizes(&data, source.size)?;
        }
        Ok(Self { source, content: ReferenceContent::Images(data) })
    }

    /// Returns true for statistics.
    pub fn is_statistics(&self) -> bool {
        matches!(self.content, ReferenceContent::Moments(..))
    }

    /// Returns the interpolation by which the images are resized, or [`UNCHANGED`]; none of a config that cannot be read.
    pub(super) fn resizer(&self) -> Option<String> {
        let ImageSource { path, size, .. } = &self.source;
        let transform = if image_set::is_config(path) {
            let data = DataModule::read(path).ok()?;
            match data.validation.unwrap_or(data.train) {
                DatasetConfig::Images(images) => images.transform,
                DatasetConfig::Scenes(_) => TransformConfig::default(),
            }
        } else {
            size.map_or_else(TransformConfig::default, TransformConfig::square)
        };
        if transform.size.is_none() || transform.resize == Resize::None {
            return Some(UNCHANGED.into());
        }
        Some(json!(transform.interpolation).as_str()?.to_owned())
    }

    /// Returns the number of images to generate for a comparison.
    pub(super) fn count(&self, options: &SetOptions) -> Result<usize> {
        image_set::check_counts(options)?;
        let known = match &self.content {
            ReferenceContent::Images(data) => Some(data.len()),
            ReferenceContent::Moments(_, moments) => moments.origin.images.map(|images| images as usize),
        };
        options.num_images.or(known).ok_or_else(|| {
            Error::invalid("--num-images: expected a number, since the statistics do not include one")
        })
    }

    /// Returns its JSON, with `count` evaluated images.
    pub(super) fn json(&self, count: Option<i64>) -> Result<Map<String, Value>> {
        let (dataset, images, fingerprint, statistics) = match &self.content {
            ReferenceContent::Images(data) => {
                (json!(data.name()), json!(count), json!(data.fingerprint()), Value::Null)
            }
            ReferenceContent::Moments(path, moments) => {
                let origin = &moments.origin;
                let file = json!({"path": path, "sha256": sha256(path)?});
                (json!(origin.dataset), json!(origin.images), json!(origin.fingerprint), file)
            }
        };
        Ok([
            ("dataset", dataset),
            ("images", images),
            ("fingerprint", fingerprint),
            ("statistics", statistics),
        ]
        .map(|(name, value)| (name.to_owned(), value))
        .into_iter()
        .collect())
    }
}
