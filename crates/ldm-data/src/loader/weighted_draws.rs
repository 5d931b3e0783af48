//! Draws by weight.

use ldm_core::{Error, Result};

/// Systematic draws by weight: of `n` draws, an example of weight `w` gets `n w / Σw`, rounded up or down by chance, so
/// that an epoch has less noise than independent draws (Cochran 1977, "Sampling Techniques", chapter 8).
#[derive(Debug)]
pub(crate) struct WeightedDraws {
    /// Sums of the weights up to and including each example, scaled to end at the number of examples.
    sums: Vec<f64>,
}

impl WeightedDraws {
    /// Creates the draws.
    ///
    /// # Errors
    /// [`Error::Invalid`] when a weight is not a number of at least 0, or all are 0.
    pub(crate) fn new(weights: &[f64]) -> Result<Self> {
        let total: f64 = weights.iter().sum();
        if weights.iter().any(|weight| weight.is_nan() || *weight < 0.) || !(total.is_finite() && total > 0.)
        {
            return Err(Error::invalid(format!(
                "weights: expected numbers of at least 0 with a positive sum, got a sum of {total}"
            )));
        }
        let mut sum = 0.;
        let scale = weights.len() as f64 / total;
        let mut add = |weight: &f64| {
            sum += weight * scale;
            sum
        };
        Ok(Self { sums: weights.iter().map(&mut add).collect() })
    }

    /// The example at `position` of an epoch, whose draws are offset by `offset` in [0, 1).
    pub(crate) fn index(&self, position: usize, offset: f64) -> usize {
        let place = position as f64 + offset;
        self.sums.partition_point(|sum| *sum <= place).min(self.sums.len() - 1)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn draws_over_many_epochs_are_in_proportion_and_zero_is_never_drawn() {
        let weighted = WeightedDraws::new(&[0., 1., 3., 0.5]).unwrap();
        let mut counts = [0; 4];
        for epoch in 0..9000 {
            (0..4).for_each(|position| counts[weighted.index(position, f64::from(epoch) / 9000.)] += 1);
        }
        assert_eq!(counts, [0, 8000, 24000, 4000]);
    }

    #[test]
    fn equal_weights_draw_each_example_once() {
        let weighted = WeightedDraws::new(&[0.1; 30]).unwrap();
        let drawn: Vec<usize> = (0..30).map(|position| weighted.index(position, 0.5)).collect();
        assert_eq!(drawn, (0..30).collect::<Vec<_>>());
    }

    #[test]
    fn weights_that_are_no_weights_are_refused() {
        for weights in [&[1., -1.][..], &[f64::NAN], &[0., 0.], &[f64::INFINITY, 1.]] {
            assert!(WeightedDraws::new(weights).is_err(), "{weights:?}");
        }
    }
}
