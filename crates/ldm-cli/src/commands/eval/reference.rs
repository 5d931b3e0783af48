//! What made images are compared with.

use std::path::PathBuf;
use std::sync::Arc;

use anyhow::Context;
use ldm_data::Dataset;
use ldm_metrics::SetMoments;
use serde_json::{Map, Value, json};

use super::set;
use crate::args::{DataArgs, MeasureArgs};
use crate::weights::sha256;

/// Real images, or a file that sums them up.
pub(super) enum Reference {
    Set(Arc<dyn Dataset>),
    Moments(PathBuf, SetMoments),
}

impl Reference {
    /// What was named.
    pub(super) fn open(args: &DataArgs) -> anyhow::Result<Self> {
        let path = &args.dataset;
        if path.extension().is_some_and(|extension| extension == "npz") {
            return Ok(Self::Moments(path.clone(), SetMoments::read_npz(path)?));
        }
        let data = set::open(args)?;
        if !set::is_config(path) {
            set::check_sizes(&data, args.size)?;
        }
        Ok(Self::Set(data))
    }

    /// How many images a model makes to be compared with it.
    pub(super) fn count(&self, how: &MeasureArgs) -> anyhow::Result<usize> {
        set::check_counts(how)?;
        let known = match self {
            Self::Set(data) => Some(data.len()),
            Self::Moments(_, moments) => moments.origin.images.map(|images| images as usize),
        };
        how.num_images.or(known).context("--num-images: say how many images the model is to make")
    }

    /// What the JSON says of it, of which `count` images were measured.
    pub(super) fn json(&self, count: Option<i64>) -> anyhow::Result<Map<String, Value>> {
        let (dataset, images, fingerprint, statistics) = match self {
            Self::Set(data) => (json!(data.name()), json!(count), json!(data.fingerprint()), Value::Null),
            Self::Moments(path, moments) => {
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
