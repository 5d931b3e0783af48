//! Reuse of the deep features of the U-Net.

use std::cell::RefCell;
use std::fmt;
use std::str::FromStr;

use ldm_core::{Error, Result};
use ldm_unet::UNet;
use tch::Tensor;

/// DeepCache (Ma, Fang & Wang 2023, arXiv:2312.00858): features of the deep blocks change little from step to step, so that
/// most evaluations compute the shallow blocks only. In text `INTERVAL` or `INTERVAL:DEPTH`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DeepCache {
    /// Every `interval`-th evaluation computes all blocks, from 2.
    pub interval: usize,
    /// Down blocks, and as many up blocks, that every evaluation computes, from 1: 2 is the first residual block and the last
    /// two.
    pub depth: usize,
}

impl DeepCache {
    const DEPTH: usize = 2;

    /// That of [`SamplingOptions::fast`](super::SamplingOptions::fast).
    pub(super) const FAST: Self = Self { interval: 2, depth: Self::DEPTH };

    /// Checks that `unet` has more blocks.
    ///
    /// # Errors
    /// [`Error::Invalid`] with the greatest depth.
    pub(super) fn check(self, unet: &UNet) -> Result<()> {
        let greatest = unet.depth() - 1;
        if (1..=greatest).contains(&self.depth) {
            return Ok(());
        }
        let message = format!("deep cache: expected a depth of 1 to {greatest}, got {}", self.depth);
        Err(Error::invalid(message))
    }
}

impl FromStr for DeepCache {
    type Err = String;

    fn from_str(text: &str) -> std::result::Result<Self, String> {
        let (interval, depth) = text.split_once(':').map_or((text, None), |(a, b)| (a, Some(b)));
        let interval = interval.parse().ok().filter(|interval| *interval >= 2);
        let depth = depth.map_or(Some(Self::DEPTH), |depth| depth.parse().ok().filter(|depth| *depth >= 1));
        let parsed = interval.zip(depth).map(|(interval, depth)| Self { interval, depth });
        parsed
            .ok_or_else(|| "expected INTERVAL or INTERVAL:DEPTH, as 3 or 3:2, with an interval from 2".into())
    }
}

impl fmt::Display for DeepCache {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.interval, self.depth)
    }
}

/// The features of one run.
#[derive(Debug)]
pub(super) struct ReusedFeatures {
    cache: DeepCache,
    state: RefCell<Reused>,
}

#[derive(Debug, Default)]
struct Reused {
    features: Option<Tensor>,
    /// Evaluations since they were computed.
    age: usize,
    /// Images of the evaluation that computed them: twice as many with guidance.
    images: i64,
}

impl ReusedFeatures {
    pub(super) fn new(cache: DeepCache) -> Self {
        Self { cache, state: RefCell::default() }
    }

    /// Calls `evaluate` with the features, none where they are to be computed anew.
    pub(super) fn evaluate(
        &self,
        images: i64,
        evaluate: impl FnOnce(ldm_unet::DeepFeatures<'_>) -> Tensor,
    ) -> Tensor {
        let mut state = self.state.borrow_mut();
        state.age += 1;
        if state.age >= self.cache.interval || state.images != images {
            *state = Reused { features: None, age: 0, images };
        }
        evaluate(ldm_unet::DeepFeatures { depth: self.cache.depth, features: &mut state.features })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cache_has_an_interval_and_a_depth() {
        assert_eq!("3".parse(), Ok(DeepCache { interval: 3, depth: 2 }));
        assert_eq!("5:1".parse::<DeepCache>().map(|cache| cache.to_string()), Ok("5:1".into()));
        for wrong in ["", "1", "0:1", "3:0", "3:", ":2", "3:2:1", "a"] {
            assert!(wrong.parse::<DeepCache>().is_err(), "{wrong}");
        }
    }

    #[test]
    fn features_are_computed_anew_at_the_interval_and_for_other_images() {
        let features = ReusedFeatures::new(DeepCache { interval: 3, depth: 1 });
        let anew = |images| {
            let mut anew = false;
            let _ = features.evaluate(images, |deep| {
                anew = deep.features.is_none();
                *deep.features = Some(Tensor::from(1.));
                Tensor::from(0.)
            });
            anew
        };
        let seen = [2, 2, 2, 2, 1, 1, 1, 1].map(anew);
        assert_eq!(seen, [true, false, false, true, true, false, false, true]);
    }
}
