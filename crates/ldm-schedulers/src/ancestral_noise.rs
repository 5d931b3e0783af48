//! Temperature and dropout of the noise that a solver adds.

use ldm_core::{Error, NoiseSource, Result};
use tch::{Kind, Tensor};

/// Changes of the noise that stochastic samplers add in their steps. The initial noise and that of an inpainting mask
/// stay as they are.
///
/// CompVis `ddim.py:199` `temperature`, `noise_dropout`.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct AncestralNoise {
    /// Factor of the noise, at least 0; 1 is the noise of the theory.
    pub temperature: f64,
    /// Probability in [0, 1) that an element has no noise; the others are divided by 1 minus it, so that their mean
    /// stays.
    pub dropout: f64,
}

impl Default for AncestralNoise {
    fn default() -> Self {
        Self { temperature: 1., dropout: 0. }
    }
}

impl AncestralNoise {
    /// Checks the ranges.
    ///
    /// # Errors
    /// [`Error::Invalid`] with the value.
    pub fn check(&self) -> Result<()> {
        if !(self.temperature >= 0. && self.temperature.is_finite()) {
            let got = self.temperature;
            return Err(Error::invalid(format!("temperature: expected a number of at least 0, got {got}")));
        }
        if !(0. ..1.).contains(&self.dropout) {
            let got = self.dropout;
            return Err(Error::invalid(format!(
                "noise dropout: expected a probability from 0 to below 1, got {got}"
            )));
        }
        Ok(())
    }

    /// Applies both to drawn noise. An element is dropped if its second draw is below the normal distribution's quantile
    /// of the probability, so that the same seed per sample decides, and not the batch.
    fn apply(self, noise: Tensor, source: &mut dyn NoiseSource) -> Tensor {
        let noise = if self.temperature == 1. { noise } else { noise * self.temperature };
        if self.dropout == 0. {
            return noise;
        }
        let options = (Kind::Double, noise.device());
        let quantile = Tensor::full([1], 2. * self.dropout - 1., options).erfinv() * std::f64::consts::SQRT_2;
        let kept = source.like(&noise).ge_tensor(&quantile).to_kind(noise.kind());
        noise * kept / (1. - self.dropout)
    }
}

/// A source whose noise is changed by [`AncestralNoise`].
pub(crate) struct ShapedNoise<'a> {
    pub(crate) source: &'a mut dyn NoiseSource,
    pub(crate) ancestral: AncestralNoise,
}

impl NoiseSource for ShapedNoise<'_> {
    fn like(&mut self, x: &Tensor) -> Tensor {
        let noise = self.source.like(x);
        self.ancestral.apply(noise, &mut *self.source)
    }

    fn integers(&mut self, high: i64, count: i64, x: &Tensor) -> Tensor {
        self.source.integers(high, count, x)
    }

    fn uniform(&mut self, count: i64, x: &Tensor) -> Tensor {
        self.source.uniform(count, x)
    }
}

#[cfg(test)]
mod tests {
    use ldm_core::noise::Seeded;
    use tch::Device;

    use super::*;

    #[test]
    fn dropout_keeps_the_share_and_the_rest_is_scaled() {
        let x = Tensor::zeros([1, 1, 100, 100], (Kind::Float, Device::Cpu));
        let plain = Seeded::new([3]).like(&x);
        let mut source = Seeded::new([3]);
        let ancestral = AncestralNoise { temperature: 2., dropout: 0.25 };
        let noise = ShapedNoise { source: &mut source, ancestral }.like(&x);
        let kept = noise.not_equal(0.);
        let share = kept.to_kind(Kind::Double).mean(Kind::Double).double_value(&[]);
        assert!((share - 0.75).abs() < 0.02, "{share}");
        let expected = plain.masked_select(&kept) * (2. / 0.75);
        assert!(noise.masked_select(&kept).allclose(&expected, 1e-6, 1e-6, false));
    }
}
