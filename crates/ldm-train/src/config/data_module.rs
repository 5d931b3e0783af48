//! `data`: datasets and their batching.

use ldm_data::DatasetConfig;
use serde::Deserialize;

/// `data`, in the form of CompVis.
#[derive(Debug, Clone, Deserialize)]
#[serde(tag = "target", content = "params", deny_unknown_fields)]
pub enum DataConfig {
    /// Datasets and their batching. CompVis `main.py:186`.
    #[serde(rename = "data_module", alias = "main.DataModuleFromConfig")]
    DataModule(DataModule),
}

/// Datasets and their batching.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DataModule {
    /// Images per micro-batch and rank.
    pub batch_size: usize,
    /// Loader threads; batches do not depend on it. 0 reads in the training thread; at most 1024.
    #[serde(default = "two")]
    pub num_workers: usize,
    /// The training set.
    pub train: DatasetConfig,
    /// Class images of prior preservation, with `train.with_prior_preservation`.
    #[serde(default)]
    pub class_images: Option<DatasetConfig>,
    /// The held-out set.
    #[serde(default)]
    pub validation: Option<DatasetConfig>,
    /// Fails at an unreadable image; otherwise it is reported once and skipped.
    #[serde(default)]
    pub strict: bool,
}

/// The largest `data.params.num_workers`.
pub(crate) const MAX_WORKERS: usize = 1024;

fn two() -> usize {
    2
}
