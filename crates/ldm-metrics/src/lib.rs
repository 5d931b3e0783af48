//! How good images are.
//!
//! Of pairs: [`psnr`], [`ssim`], [`ms_ssim`] and [`Lpips`], how alike two images look. Of sets, by features of
//! [`Inception`] or any other network: [`FeatureStatistics`] and [`Gaussian::distance`] (FID), [`KernelDistance`] (KID),
//! [`Manifold`] (precision, recall, density, coverage), [`inception_score`]; [`SetFeatures`] gathers for all of them, by the
//! [`FeatureNetwork`] there is, and [`SetMoments`] is a file of reference statistics. [`Reconstructions`] takes both of what a first
//! stage gives back. [`MeanStd`] sums up a metric over a set.

mod feature_network;
mod feature_statistics;
mod inception;
mod inception_plan;
mod inception_score;
mod kernel_distance;
mod lpips;
mod manifold;
mod mean_std;
mod npz;
mod pixel;
mod reconstructions;
mod set_features;
mod set_moments;
mod shapes;
mod ssim;
mod vgg;

pub use feature_network::{FeatureNetwork, Features};
pub use feature_statistics::{FeatureStatistics, Gaussian};
pub use inception::{Inception, InceptionFeatures};
pub use inception_score::inception_score;
pub use kernel_distance::KernelDistance;
pub use lpips::{Lpips, Trunk};
pub use manifold::Manifold;
pub use mean_std::MeanStd;
pub use pixel::psnr;
pub use reconstructions::Reconstructions;
pub use set_features::{Kept, SetDistance, SetFeatures};
pub use set_moments::{Origin, SetMoments};
pub use ssim::{ms_ssim, ssim};

#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;
