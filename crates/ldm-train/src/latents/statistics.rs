//! Statistics of a first stage's latents.

use ldm_autoencoder::Posterior;
use ldm_checkpoint::Checkpoint;
use ldm_core::{Error, Result};
use serde::{Deserialize, Serialize};
use tch::{Kind, Tensor};

/// The metadata entry of a first stage's checkpoint, JSON.
const ENTRY: &str = "latent_statistics";

/// Mean and standard deviation of a first stage's latents over a set of images: the diffusion model's scale factor is
/// `1 / std` (Rombach et al. 2022, appendix G).
///
/// For a Gaussian posterior these are the statistics of its samples in closed form: Var z = Var μ + E σ².
/// CompVis measures one sample of one batch (`ddpm.py:530`).
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LatentStatistics {
    /// Number of images.
    #[serde(alias = "pictures")] // first stages exported before 0.1
    pub images: u64,
    /// The mean of each channel.
    #[serde(with = "ldm_core::json::floats")]
    pub mean: Vec<f64>,
    /// The standard deviation of each channel.
    #[serde(with = "ldm_core::json::floats")]
    pub std: Vec<f64>,
    /// The standard deviation over all channels, about their common mean.
    #[serde(with = "ldm_core::json::float")]
    pub overall_std: f64,
}

impl LatentStatistics {
    /// Serializes the statistics into a metadata entry.
    pub(crate) fn entry(&self) -> (String, String) {
        (ENTRY.to_owned(), serde_json::to_string(self).expect("plain numbers"))
    }

    /// Reads the statistics in a checkpoint's metadata, if any.
    ///
    /// # Errors
    /// [`Error::Format`] when the entry cannot be parsed, when it does not have `channels` channels, or when
    /// `overall_std` is not positive.
    pub fn of(checkpoint: &Checkpoint, channels: i64) -> Result<Option<Self>> {
        let Some(text) = checkpoint.metadata().get(ENTRY) else { return Ok(None) };
        let wrong =
            |message: String| Error::format(checkpoint.path(), format!("metadata `{ENTRY}`: {message}"));
        let found: Self = serde_json::from_str(text).map_err(|error| wrong(error.to_string()))?;
        for (key, list) in [("mean", &found.mean), ("std", &found.std)] {
            if list.len() as i64 != channels {
                return Err(wrong(format!("{key}: expected {channels} channels, got {}", list.len())));
            }
        }
        if !(found.overall_std.is_finite() && found.overall_std > 0.) {
            return Err(wrong(format!("overall_std: expected a positive number, got {}", found.overall_std)));
        }
        Ok(Some(found))
    }
}

/// Accumulates [`LatentStatistics`] on the device (Chan et al. 1979): batches are merged by their means, which avoids
/// cancellation.
#[derive(Debug, Default)]
pub(crate) struct LatentSums {
    images: u64,
    /// Values per channel.
    count: f64,
    /// `[C]` f64 each: the mean, and the sum of squared deviations and of posterior variances.
    sums: Option<[Tensor; 2]>,
}

impl LatentSums {
    pub(crate) fn add(&mut self, posterior: &Posterior) {
        let (mean, variance) = match posterior {
            Posterior::Gaussian { mean, logvar } => (mean, Some(logvar.to_kind(Kind::Double).exp())),
            Posterior::Point(point) => (point, None),
        };
        let z = mean.detach().to_kind(Kind::Double);
        let dims = [0, 2, 3];
        let at = z.mean_dim(dims.as_slice(), true, Kind::Double);
        let mut squares = (&z - &at).square().sum_dim_intlist(dims.as_slice(), false, Kind::Double);
        if let Some(variance) = variance {
            squares += variance.detach().sum_dim_intlist(dims.as_slice(), false, Kind::Double);
        }
        let (at, size) = (at.view([-1]), z.size());
        let count = (size[0] * size[2] * size[3]) as f64;
        self.images += size[0] as u64;
        self.sums = Some(match self.sums.take() {
            None => [at, squares],
            Some([mean, sum]) => {
                let (all, delta) = (self.count + count, &at - &mean);
                let between = delta.square() * (self.count * count / all);
                [mean + delta * (count / all), sum + squares + between]
            }
        });
        self.count += count;
    }

    /// The statistics; `None` without images.
    pub(crate) fn finish(self) -> Option<LatentStatistics> {
        let [mean, squares] = self.sums?;
        let overall = mean.mean(Kind::Double);
        let between = (&mean - overall).square().sum(Kind::Double).double_value(&[]) * self.count;
        let total = self.count * mean.size()[0] as f64;
        let all = squares.sum(Kind::Double).double_value(&[]) + between;
        let list = |x: Tensor| Vec::<f64>::try_from(x).expect("a flat list of f64");
        Some(LatentStatistics {
            images: self.images,
            mean: list(mean),
            std: list((squares / (self.count - 1.)).sqrt()),
            overall_std: (all / (total - 1.)).sqrt(),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use ldm_core::NoiseSource;
    use ldm_core::noise::Seeded;
    use tch::Device;

    #[test]
    fn statistics_do_not_depend_on_the_batch_size() {
        let like = Tensor::zeros([7, 2, 3, 5], (Kind::Float, Device::Cpu));
        let offset = Tensor::from_slice(&[1000_f32, -3.]).view([1, 2, 1, 1]);
        let z = Seeded::new(0..7).like(&like) + offset;
        let mut sums = LatentSums::default();
        for part in z.split_with_sizes([3, 3, 1], 0) {
            sums.add(&Posterior::Point(part));
        }
        let got = sums.finish().expect("images");
        let z = z.to_kind(Kind::Double);
        let near = |got: f64, want: Tensor| {
            let want = want.double_value(&[]);
            assert!((got - want).abs() <= 1e-10 * want.abs(), "got {got}, want {want}");
        };
        assert_eq!(got.images, 7);
        for channel in 0..2 {
            near(got.mean[channel], z.select(1, channel as i64).mean(Kind::Double));
            near(got.std[channel], z.select(1, channel as i64).std(true));
        }
        near(got.overall_std, z.std(true));
        assert_eq!(LatentSums::default().finish(), None);
    }

    #[test]
    fn posterior_variances_are_included() {
        let mean = Seeded::new(0..400).like(&Tensor::zeros([400, 1, 8, 8], (Kind::Float, Device::Cpu)));
        let logvar = mean.full_like(3_f64.ln());
        let mut sums = LatentSums::default();
        sums.add(&Posterior::Gaussian { mean, logvar });
        let got = sums.finish().expect("images");
        assert!((got.overall_std - 2.).abs() < 0.02, "Var = 1 + 3: {got:?}");
    }
}
