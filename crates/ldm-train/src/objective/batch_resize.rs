//! `batch_resize_range`: random sizes of a first stage's batches.

use ldm_autoencoder::{FirstStageConfig, VqConfig};
use ldm_core::{Error, NoiseSource, Result};
use tch::Tensor;

use crate::objective::losses::{AdversarialLoss, LossConfig};

/// Steps at the largest size, so that a lack of memory shows at once.
const LARGEST_FIRST: u64 = 5;
/// Pixels between two sizes.
const STRIDE: i64 = 16;

/// Resizes every batch to a random square. CompVis `autoencoder.py:129` `get_input`, which forgets an import and fails
/// at the sixth step.
#[derive(Debug, Clone, Copy)]
pub(crate) struct BatchResize {
    least: i64,
    largest: i64,
}

impl BatchResize {
    /// The sizes of a VQ first stage's config, if it has any; `check` checks one.
    ///
    /// # Errors
    /// [`Error::Invalid`] when one does not fit the model, or with `disc_conditional`, whose label maps have one size.
    pub(crate) fn of(
        config: &FirstStageConfig,
        check: &dyn Fn([i64; 2]) -> Result<()>,
    ) -> Result<Option<Self>> {
        const KEY: &str = "model.params.batch_resize_range";
        let FirstStageConfig::Vq(VqConfig { batch_resize_range: Some(range), .. }) = config else {
            return Ok(None);
        };
        if let LossConfig::Vq(AdversarialLoss { disc_conditional: true, .. }) = LossConfig::of(config)? {
            return Err(Error::expected(KEY, "none with disc_conditional", "one"));
        }
        let resize = Self::new(*range);
        for side in resize.sides() {
            check([side, side]).map_err(|error| match error {
                Error::Invalid(message) => Error::invalid(format!("{KEY}: {message}")),
                other => other,
            })?;
        }
        Ok(Some(resize))
    }

    /// Sides from `least` to `largest` pixels, as `numpy.arange(least, largest + 16, 16)`: the last one may exceed
    /// `largest` where 16 does not divide their difference.
    fn new([least, largest]: [i64; 2]) -> Self {
        Self { least, largest }
    }

    /// The size of the first steps.
    pub(crate) fn largest(&self) -> [i64; 2] {
        [self.largest; 2]
    }

    /// All sides, and `largest`, that of the first steps.
    fn sides(&self) -> impl Iterator<Item = i64> + use<> {
        let random = (self.least..self.largest + STRIDE).step_by(STRIDE as usize);
        random.chain([self.largest])
    }

    /// Resizes images `[B, C, H, W]` by bicubic interpolation, `[B, C, S, S]`, unless they have this height.
    pub(crate) fn apply(&self, images: &Tensor, step: u64, noise: &mut dyn NoiseSource) -> Tensor {
        let side = if step < LARGEST_FIRST {
            self.largest
        } else {
            let count = (self.largest - self.least + STRIDE - 1) / STRIDE + 1;
            self.least + STRIDE * noise.integers(count, 1, images).int64_value(&[0])
        };
        if side == images.size()[2] {
            return images.shallow_clone();
        }
        images.upsample_bicubic2d([side, side], false, None, None)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use ldm_core::noise::PerStep;
    use tch::{Device, Kind};

    use super::*;

    #[test]
    fn sides_are_those_of_numpys_arange_and_the_first_steps_have_the_largest() {
        let images = Tensor::zeros([2, 3, 64, 64], (Kind::Float, Device::Cpu));
        for ([least, largest], expected) in
            [([32, 64], vec![32, 48, 64]), ([32, 70], vec![32, 48, 64, 80]), ([32, 32], vec![32])]
        {
            let resize = BatchResize::new([least, largest]);
            let side = |step: u64| {
                let size = resize.apply(&images, step, &mut PerStep::new(1, 0, step)).size();
                assert_eq!(size[2], size[3]);
                size[2]
            };
            assert!((0..5).all(|step| side(step) == largest), "the first steps of {least}..{largest}");
            let sides: BTreeSet<i64> = (5..200).map(side).collect();
            assert_eq!(sides.into_iter().collect::<Vec<_>>(), expected);
            assert_eq!(side(77), side(77), "a function of the step");
        }
    }
}
