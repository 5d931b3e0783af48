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

impl Spread {
    /// Returns a line of a table: the name, mean and deviation, or the mean of a single image; none without images.
    pub(crate) fn line(self, name: &str, unit: &str) -> Option<String> {
        let Self { mean, std } = self;
        let deviation = if std.is_nan() { String::new() } else { format!(" +- {std:.4}") };
        (!mean.is_nan()).then(|| format!("{name:<17} {mean:.4}{deviation}{unit}"))
    }
}

impl From<&ldm_metrics::MeanStd> for Spread {
    fn from(sum: &ldm_metrics::MeanStd) -> Self {
        Self { mean: sum.mean(), std: sum.std() }
    }
}
