//! Means with standard deviations.

use serde::{Deserialize, Serialize};

/// A mean and a standard deviation.
#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Spread {
    /// The mean.
    #[serde(with = "ldm_core::json::float")]
    pub mean: f64,
    /// The standard deviation.
    #[serde(with = "ldm_core::json::float")]
    pub std: f64,
}

impl From<&ldm_metrics::MeanStd> for Spread {
    fn from(sum: &ldm_metrics::MeanStd) -> Self {
        Self { mean: sum.mean(), std: sum.std() }
    }
}
