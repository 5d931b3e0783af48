//! Image quality metrics.
//!
//! - Pairs of images: [`psnr`] and [`psnr_within`] a mask, [`ssim`], [`ms_ssim`] and the perceptual distance [`Lpips`];
//!   [`MeanStd`] averages a metric.
//! - Sets of images, by features of [`Inception`] or another network: [`FeatureStatistics`] and [`Gaussian::distance`]
//!   (FID), [`KernelDistance`] (KID), [`Manifold`] (precision, recall, density, coverage), [`inception_score`].
//!   [`SetFeatures`] collects the features of a [`FeatureNetwork`] for all of them; [`SetMoments`] is a file of reference
//!   statistics.
//! - [`Reconstructions`]: both for the reconstructions of a first stage.

mod efficientnet;
mod feature_network;
mod feature_sets;
mod feature_statistics;
mod frozen_batch_norm;
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
mod ssim;
mod vgg;

pub use efficientnet::EfficientNet;
pub use feature_network::{FeatureNetwork, Features};
pub use feature_statistics::{FeatureStatistics, Gaussian};
pub use inception::{Inception, InceptionFeatures};
pub use inception_score::inception_score;
pub use kernel_distance::KernelDistance;
pub use lpips::{Lpips, Trunk};
pub use manifold::Manifold;
pub use mean_std::MeanStd;
pub use pixel::{label_accuracy, psnr, psnr_within};
pub use reconstructions::Reconstructions;
pub use set_features::{Retain, SetDistance, SetFeatures};
pub use set_moments::{Origin, SetMoments};
pub use ssim::{ms_ssim, ssim};

#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;
