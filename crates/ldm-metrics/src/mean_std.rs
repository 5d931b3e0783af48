//! Mean and deviation of a metric.

use tch::{Kind, Tensor};

/// Streaming mean and standard deviation of a metric over a set of images. It keeps all values (8 bytes per image), so that
/// the result does not depend on batch sizes.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct MeanStd(Vec<f64>);

impl MeanStd {
    /// Creates an empty set.
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds the values of a batch, of any shape.
    pub fn add(&mut self, values: &Tensor) {
        let values = values.detach().to_kind(Kind::Double).flatten(0, -1);
        self.0.extend(Vec::<f64>::try_from(values).expect("a flat f64 tensor reads as a list"));
    }

    /// Number of values.
    pub fn count(&self) -> usize {
        self.0.len()
    }

    /// Returns the mean; NaN without values.
    pub fn mean(&self) -> f64 {
        self.0.iter().sum::<f64>() / self.0.len() as f64
    }

    /// Returns the standard deviation of the sample (divided by n − 1); NaN with fewer than two values.
    pub fn std(&self) -> f64 {
        if self.0.len() < 2 {
            return f64::NAN;
        }
        let mean = self.mean();
        let squares: f64 = self.0.iter().map(|value| (value - mean).powi(2)).sum();
        (squares / (self.0.len() - 1) as f64).sqrt()
    }
}
