//! Results of a study: `results.json`, and the parts of it.

use serde::{Deserialize, Serialize};

use super::study_file::StudyConfig;
use crate::Spread;

/// All results of a study.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct StudyResults {
    /// Version of ldm.
    pub ldm: String,
    /// The study.
    pub study: StudyConfig,
    /// The real images.
    pub reference: ReferenceResult,
    /// The factors with results, in the study's order.
    pub factors: Vec<FactorResult>,
}

/// The real images, to compare generated ones with.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ReferenceResult {
    /// Name of the set.
    pub dataset: String,
    /// Fingerprint of the set.
    pub fingerprint: String,
    /// Number of images.
    pub images: i64,
    /// The network that compares sets.
    pub features: String,
    /// Height and width.
    pub size: [i64; 2],
    /// Quality of as many training images as are generated: a floor of the distances.
    pub floor: Quality,
    /// The device.
    pub device: String,
    /// CPU threads.
    pub threads: usize,
}

/// Results of one factor.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct FactorResult {
    /// The factor.
    pub f: i64,
    /// The first stage; none for f = 1.
    pub first_stage: Option<FirstStageResult>,
    /// The diffusion model.
    pub diffusion: DiffusionResult,
    /// The trained model.
    pub sampling: SamplingResult,
}

/// The cost of a training.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TrainingCost {
    /// Parameters of the model.
    pub parameters: usize,
    /// Steps.
    pub steps: u64,
    /// Number of images.
    pub images: u64,
    /// Seconds of training, without measurements.
    #[serde(with = "ldm_core::json::float")]
    pub seconds: f64,
    /// Throughput.
    #[serde(with = "ldm_core::json::float")]
    pub images_per_second: f64,
    /// Peak memory in bytes: of the process on the CPU, of the allocator on CUDA.
    pub peak_memory: u64,
}

/// Results of a first stage.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct FirstStageResult {
    /// The cost of training.
    pub training: TrainingCost,
    /// Number of images.
    pub images: u64,
    /// PSNR in dB.
    pub psnr: Spread,
    /// SSIM.
    pub ssim: Spread,
    /// LPIPS.
    pub lpips: Spread,
    /// The network of LPIPS.
    pub lpips_trunk: String,
    /// Fréchet distance of reconstructions and originals (rFID by Inception).
    #[serde(with = "ldm_core::json::float")]
    pub frechet_distance: f64,
    /// Images encoded per second.
    #[serde(with = "ldm_core::json::float")]
    pub encoded_per_second: f64,
    /// Images decoded per second.
    #[serde(with = "ldm_core::json::float")]
    pub decoded_per_second: f64,
}

/// Results of a diffusion model during training.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DiffusionResult {
    /// The latent's shape `[C, h, w]`.
    pub latent: [i64; 3],
    /// The cost of training.
    pub training: TrainingCost,
    /// Measurements.
    pub points: Vec<QualityPoint>,
}

/// A measurement during training.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct QualityPoint {
    /// Training step.
    pub step: u64,
    /// Number of images.
    pub images: u64,
    /// Seconds of training.
    #[serde(with = "ldm_core::json::float")]
    pub seconds: f64,
    /// Distances to real images.
    pub quality: Quality,
}

/// Results of a trained model by sampling steps.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SamplingResult {
    /// Peak memory in bytes.
    pub peak_memory: u64,
    /// Results by sampling steps.
    pub by_steps: Vec<BySteps>,
}

/// Results at one number of sampling steps.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct BySteps {
    /// Steps.
    pub steps: usize,
    /// Throughput, including decoding.
    #[serde(with = "ldm_core::json::float")]
    pub images_per_second: f64,
    /// Seconds per image.
    #[serde(with = "ldm_core::json::float")]
    pub seconds_per_image: f64,
    /// Distances to real images.
    pub quality: Quality,
}

/// Distances of generated images to real ones.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Quality {
    /// Number of images.
    pub images: i64,
    /// Fréchet distance.
    #[serde(with = "ldm_core::json::float")]
    pub frechet_distance: f64,
    /// sFID; of Inception alone.
    #[serde(with = "ldm_core::json::floats", default)]
    pub spatial_frechet_distance: Option<f64>,
    /// Kernel distance.
    pub kernel_distance: Option<Spread>,
    /// Precision.
    #[serde(with = "ldm_core::json::floats", default)]
    pub precision: Option<f64>,
    /// Recall.
    #[serde(with = "ldm_core::json::floats", default)]
    pub recall: Option<f64>,
    /// Density.
    #[serde(with = "ldm_core::json::floats", default)]
    pub density: Option<f64>,
    /// Coverage.
    #[serde(with = "ldm_core::json::floats", default)]
    pub coverage: Option<f64>,
    /// Inception score.
    pub inception_score: Option<Spread>,
}
