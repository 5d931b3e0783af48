//! Reference statistics: mean and covariance of the features of a set.

use std::path::Path;

use ldm_core::{Error, Result};

use crate::{FeatureNetwork, FeatureStatistics, Gaussian, SetDistance, SetFeatures, npz};

/// Moments of the features of a set, and the origin of the set.
#[derive(Debug)]
pub struct SetMoments {
    /// Moments of the features of FID.
    pub pooled: Gaussian,
    /// Moments of the features of sFID, if any.
    pub spatial: Option<Gaussian>,
    /// The origin; empty in files of other programs.
    pub origin: Origin,
}

/// Origin of moments: the set and the feature network.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Origin {
    /// [`FeatureNetwork::name`].
    pub features: Option<String>,
    /// Number of images.
    pub images: Option<i64>,
    /// Name of the set.
    pub dataset: Option<String>,
    /// Fingerprint of the set.
    pub fingerprint: Option<String>,
    /// Height and width of the images.
    pub size: Option<[i64; 2]>,
    /// Method by which they were resized to it.
    pub resizer: Option<String>,
}

impl SetMoments {
    /// Creates moments from pooled and spatial statistics.
    ///
    /// # Errors
    /// [`Error::Invalid`] with fewer than two images.
    pub(crate) fn of(statistics: [Option<&FeatureStatistics>; 2]) -> Result<Self> {
        let [Some(pooled), spatial] = statistics else {
            return Err(Error::invalid("set: expected at least 2 images, got none"));
        };
        Ok(Self {
            pooled: pooled.gaussian()?,
            spatial: spatial.map(FeatureStatistics::gaussian).transpose()?,
            origin: Origin { images: Some(pooled.count()), ..Origin::default() },
        })
    }

    /// Computes FID, and sFID if both have spatial features.
    ///
    /// # Errors
    /// As [`Gaussian::distance`].
    pub fn frechet(&self, other: &Self) -> Result<(f64, Option<f64>)> {
        let spatial = self.spatial.as_ref().zip(other.spatial.as_ref());
        let spatial = spatial.map(|(one, other)| one.distance(other)).transpose()?;
        Ok((self.pooled.distance(&other.pooled)?, spatial))
    }

    /// Computes the distance of the `made` (generated) set to this one, the real one, by moments only.
    ///
    /// # Errors
    /// As [`SetMoments::frechet`].
    pub fn distance(&self, made: &SetFeatures) -> Result<SetDistance> {
        let (frechet, spatial) = self.frechet(&made.moments()?)?;
        Ok(SetDistance {
            frechet,
            spatial,
            kernel: None,
            manifold: None,
            inception_score: made.inception_score()?,
        })
    }

    /// Checks that these are moments of the features of `network`.
    ///
    /// # Errors
    /// [`Error::Invalid`] with the network they are of.
    pub fn check(&self, network: &FeatureNetwork) -> Result<()> {
        let (name, size) = (network.name(), network.size());
        if let Some(features) = self.origin.features.as_ref().filter(|features| *features != name) {
            return Err(Error::invalid(format!("statistics: expected features of {name}, got {features}")));
        }
        let found = self.pooled.mean.size()[0];
        if found != size {
            return Err(Error::invalid(format!(
                "statistics: expected {size} features of {name}, got {found}"
            )));
        }
        Ok(())
    }

    /// Reads an `.npz`: `mu` and `sigma` as in pytorch-fid, `mu_s` and `sigma_s` as in ADM's reference batches, and the
    /// additional arrays of [`SetMoments::write_npz`]. Other arrays are ignored.
    ///
    /// # Errors
    /// [`Error::Io`] and [`Error::Format`] with the file, and the array that is missing or of a wrong shape.
    pub fn read_npz(path: impl AsRef<Path>) -> Result<Self> {
        npz::read(path.as_ref())
    }

    /// Writes the arrays of ADM's reference batches (`mu`, `sigma`; `mu_s`, `sigma_s` with spatial features), which pytorch-fid
    /// reads too, and in addition `images` (i64), `size` (i64, height and width) and the UTF-8 bytes of `features`, `dataset`,
    /// `fingerprint` and `resizer`. The write is atomic.
    ///
    /// # Errors
    /// [`Error::Io`] with the file.
    pub fn write_npz(&self, path: impl AsRef<Path>) -> Result<()> {
        npz::write(path.as_ref(), self)
    }
}
