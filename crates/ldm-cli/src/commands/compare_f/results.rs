//! What a study finds: `results.json`, and the parts it is put together from.

use serde::{Deserialize, Serialize};

use super::config::StudyConfig;

/// All of it.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Results {
    pub(crate) ldm: String,
    pub(crate) study: StudyConfig,
    pub(crate) reference: Reference,
    /// Those that are done, in the study's order.
    pub(crate) factors: Vec<Factor>,
}

/// What made images are compared with.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Reference {
    pub(crate) dataset: String,
    pub(crate) fingerprint: String,
    pub(crate) images: i64,
    /// The network by whose features sets are compared.
    pub(crate) features: String,
    /// `[height, width]`.
    pub(crate) size: [i64; 2],
    /// How far as many training images are from the reference as are made: what nothing can be expected to better.
    pub(crate) floor: Quality,
    pub(crate) device: String,
    pub(crate) threads: usize,
}

/// One value of f.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Factor {
    pub(crate) f: i64,
    /// None for f = 1.
    pub(crate) first_stage: Option<FirstStage>,
    pub(crate) diffusion: Diffusion,
    pub(crate) sampling: Sampling,
}

/// How long something was trained, and what that took.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Training {
    pub(crate) parameters: usize,
    pub(crate) steps: u64,
    pub(crate) images: u64,
    /// Of training alone, measurements not counted.
    pub(crate) seconds: f64,
    pub(crate) images_per_second: f64,
    /// Bytes: of the process on the CPU, of the allocator on CUDA.
    pub(crate) peak_memory: u64,
}

/// A first stage.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct FirstStage {
    pub(crate) training: Training,
    pub(crate) images: u64,
    pub(crate) psnr: Spread,
    pub(crate) ssim: Spread,
    pub(crate) lpips: Spread,
    /// By which network LPIPS looked.
    pub(crate) lpips_trunk: String,
    /// Of the reconstructions to their originals (rFID where the features are Inception's).
    pub(crate) frechet_distance: f64,
    pub(crate) encoded_per_second: f64,
    pub(crate) decoded_per_second: f64,
}

/// A diffusion model along its training.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Diffusion {
    /// `[C, h, w]`.
    pub(crate) latent: [i64; 3],
    pub(crate) training: Training,
    pub(crate) points: Vec<Point>,
}

/// A measurement along the training.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Point {
    pub(crate) step: u64,
    pub(crate) images: u64,
    pub(crate) seconds: f64,
    pub(crate) quality: Quality,
}

/// A trained model by the number of its steps.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Sampling {
    pub(crate) peak_memory: u64,
    pub(crate) by_steps: Vec<BySteps>,
}

/// So many images, sampled in so many steps.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct BySteps {
    pub(crate) steps: usize,
    /// Decoding included.
    pub(crate) images_per_second: f64,
    /// What an image costs, on this device.
    pub(crate) seconds_per_image: f64,
    pub(crate) quality: Quality,
}

/// Made images against real ones.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Quality {
    pub(crate) images: i64,
    pub(crate) frechet_distance: f64,
    /// sFID; Inception's alone.
    pub(crate) spatial_frechet_distance: Option<f64>,
    pub(crate) kernel_distance: Option<Spread>,
    pub(crate) precision: Option<f64>,
    pub(crate) recall: Option<f64>,
    pub(crate) density: Option<f64>,
    pub(crate) coverage: Option<f64>,
    pub(crate) inception_score: Option<Spread>,
}

/// A mean and a standard deviation.
#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Spread {
    pub(crate) mean: f64,
    pub(crate) std: f64,
}

impl From<&ldm_metrics::MeanStd> for Spread {
    fn from(sum: &ldm_metrics::MeanStd) -> Self {
        Self { mean: sum.mean(), std: sum.std() }
    }
}
