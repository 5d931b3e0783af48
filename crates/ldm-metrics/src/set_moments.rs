//! A set as mean and covariance of its features: what a file of reference statistics holds.

use std::path::Path;

use ldm_core::{Error, Result};

use crate::{FeatureNetwork, FeatureStatistics, Gaussian, SetDistance, SetFeatures, npz};

/// Moments of a set's features, and what is known of the set.
#[derive(Debug)]
pub struct SetMoments {
    /// Of the features that FID compares.
    pub pooled: Gaussian,
    /// Of those that sFID compares, where there are any.
    pub spatial: Option<Gaussian>,
    /// What says so; nothing where other programs wrote the file.
    pub origin: Origin,
}

/// Which set, looked at by which network.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Origin {
    /// [`FeatureNetwork::name`].
    pub features: Option<String>,
    /// How many images.
    pub images: Option<i64>,
    /// What the set is called.
    pub dataset: Option<String>,
    /// The set's fingerprint.
    pub fingerprint: Option<String>,
}

impl SetMoments {
    /// # Errors
    /// [`Error::Invalid`] with fewer than two images.
    pub(crate) fn of(statistics: [Option<&FeatureStatistics>; 2]) -> Result<Self> {
        let [Some(pooled), spatial] = statistics else {
            return Err(Error::invalid("a set without images has no features"));
        };
        Ok(Self {
            pooled: pooled.gaussian()?,
            spatial: spatial.map(FeatureStatistics::gaussian).transpose()?,
            origin: Origin { images: Some(pooled.count()), ..Origin::default() },
        })
    }

    /// FID, and sFID where both have spatial features.
    ///
    /// # Errors
    /// As [`Gaussian::distance`].
    pub fn frechet(&self, other: &Self) -> Result<(f64, Option<f64>)> {
        let spatial = self.spatial.as_ref().zip(other.spatial.as_ref());
        let spatial = spatial.map(|(one, other)| one.distance(other)).transpose()?;
        Ok((self.pooled.distance(&other.pooled)?, spatial))
    }

    /// How far the `made` set is from this one, the real one: what moments say of it.
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

    /// Refuses moments that are not of the features of `network`.
    ///
    /// # Errors
    /// [`Error::Invalid`] saying whose they are.
    pub fn check(&self, network: &FeatureNetwork) -> Result<()> {
        let (name, size) = (network.name(), network.size());
        if let Some(features) = self.origin.features.as_ref().filter(|features| *features != name) {
            return Err(Error::invalid(format!(
                "statistics of {features}, where images are looked at by {name}"
            )));
        }
        let found = self.pooled.mean.size()[0];
        if found != size {
            return Err(Error::invalid(format!("statistics of {found} features, where {name} has {size}")));
        }
        Ok(())
    }

    /// Reads an `.npz`: `mu` and `sigma` as pytorch-fid writes them, `mu_s` and `sigma_s` where ADM's reference batches have
    /// them, and what [`SetMoments::write_npz`] says beside. Other arrays are left alone.
    ///
    /// # Errors
    /// [`Error::Io`] and [`Error::Format`] with the file, and the array that is missing or of a wrong shape.
    pub fn read_npz(path: impl AsRef<Path>) -> Result<Self> {
        npz::read(path.as_ref())
    }

    /// Writes the layout of ADM's reference batches (`mu`, `sigma`; `mu_s`, `sigma_s` where there are spatial features), which
    /// pytorch-fid reads too; and beside them `images` (i64) and the UTF-8 bytes of `features`, `dataset` and `fingerprint`.
    /// Whole or not at all.
    ///
    /// # Errors
    /// [`Error::Io`] with the file.
    pub fn write_npz(&self, path: impl AsRef<Path>) -> Result<()> {
        npz::write(path.as_ref(), self)
    }
}
