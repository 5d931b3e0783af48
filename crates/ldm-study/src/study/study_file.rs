//! The file of a study: factors, budget, measurements, and the configs that all factors share.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use ldm_core::Result;
use ldm_core::config::{self, Value};
use serde::{Deserialize, Serialize};

use crate::context::bail;

/// The file of a study.
#[derive(Debug, Clone, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct StudyFile {
    /// Factors, budget, measurements.
    pub study: StudyConfig,
    /// The training config that first stages share.
    pub first_stage: Value,
    /// The training config that diffusion models share, without `first_stage_config`.
    pub diffusion: Value,
}

/// Factors, budget, measurements.
#[derive(Debug, Clone, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct StudyConfig {
    /// The factors.
    pub factors: Vec<FactorConfig>,
    /// The budgets of training.
    pub budget: TrainingBudgets,
    /// The measurements.
    pub measure: MeasureConfig,
}

/// One value of f.
#[derive(Debug, Clone, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct FactorConfig {
    /// The downsampling factor. 1 has no first stage: diffusion in pixels.
    pub f: i64,
    /// Overrides of the first stage's config for this factor, as `model.params.embed_dim: 4`.
    #[serde(default)]
    pub first_stage: BTreeMap<String, Value>,
    /// Overrides of the diffusion model's config for this factor.
    #[serde(default)]
    pub diffusion: BTreeMap<String, Value>,
}

/// Training budgets, the same for every factor.
#[derive(Debug, Clone, Copy, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct TrainingBudgets {
    /// The budget of each first stage.
    pub first_stage: TrainingBudget,
    /// The budget of each diffusion model.
    pub diffusion: TrainingBudget,
}

/// A training budget: one of steps, images and seconds.
#[derive(Debug, Clone, Copy, Default, Deserialize, Serialize)]
#[serde(deny_unknown_fields, default)]
pub struct TrainingBudget {
    /// Optimizer steps.
    pub steps: Option<u64>,
    /// Training images.
    pub images: Option<u64>,
    /// Seconds on this device, converted to steps by a short trial, so that the learning-rate schedule knows its end
    /// and a resumed run has the same one.
    pub seconds: Option<f64>,
}

/// Measurements of the models.
#[derive(Debug, Clone, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct MeasureConfig {
    /// Generated images per measurement.
    pub images: usize,
    /// Held-out images to compare with.
    pub reference: usize,
    /// Held-out images to reconstruct.
    pub reconstructions: usize,
    /// Measurements of a diffusion model during training, evenly spaced, including the end.
    pub points: u64,
    /// DDIM steps of these measurements (100 in the paper's Figure 6).
    pub progress_steps: usize,
    /// Numbers of DDIM steps to measure and time the trained model at (10 to 200 in the paper's Figure 7).
    pub sampling_steps: Vec<usize>,
    /// Eta of DDIM.
    #[serde(default = "one")]
    pub eta: f64,
    /// Scale of classifier-free guidance.
    #[serde(default = "one")]
    pub guidance_scale: f64,
    /// Images per batch.
    #[serde(default = "batch")]
    pub batch_size: usize,
}

fn one() -> f64 {
    1.
}

fn batch() -> usize {
    64
}

impl StudyFile {
    /// Parses the text of a study, with `overrides` of the form `study.measure.images=64`.
    ///
    /// # Errors
    /// When it is malformed or inconsistent.
    pub fn parse(text: &str, path: &Path, overrides: &[String]) -> Result<Self> {
        let study: Self = config::parse(text, path, overrides)?;
        study.check(path)?;
        Ok(study)
    }

    fn check(&self, path: &Path) -> Result<()> {
        let (study, path) = (&self.study, path.display());
        let mut seen = BTreeSet::new();
        for factor in &study.factors {
            if factor.f < 1 || !seen.insert(factor.f) {
                bail!("{path}: study.factors: expected each f once and at least 1, got {}", factor.f);
            }
            if factor.f == 1 && !factor.first_stage.is_empty() {
                bail!("{path}: study.factors: expected no first_stage for f = 1, diffusion in pixels");
            }
        }
        if study.factors.is_empty() {
            bail!("{path}: study.factors: expected at least one factor");
        }
        for (key, budget) in
            [("first_stage", study.budget.first_stage), ("diffusion", study.budget.diffusion)]
        {
            let given = [budget.steps.map(|n| n as f64), budget.images.map(|n| n as f64), budget.seconds];
            let given: Vec<f64> = given.into_iter().flatten().collect();
            if given.len() != 1 || !given.iter().all(|value| value.is_finite() && *value > 0.) {
                bail!("{path}: study.budget.{key}: expected one of steps, images and seconds, above 0");
            }
        }
        let measure = &study.measure;
        let least = [
            ("images", measure.images, 2),
            ("reference", measure.reference, 2),
            ("reconstructions", measure.reconstructions, 2),
            ("points", measure.points as usize, 1),
            ("progress_steps", measure.progress_steps, 1),
            ("sampling_steps", measure.sampling_steps.iter().copied().min().unwrap_or(0), 1),
            ("batch_size", measure.batch_size, 1),
        ];
        for (key, value, least) in least {
            if value < least {
                bail!("{path}: study.measure.{key}: expected at least {least}, got {value}");
            }
        }
        Ok(())
    }

    /// Returns the study as YAML.
    pub fn to_text(&self) -> String {
        config::to_text(&serde_yaml::to_value(self).expect("plain numbers and words"))
    }
}

impl TrainingBudget {
    /// Returns the number of steps of `batch` images, at `rate` steps per second.
    pub(super) fn steps(&self, batch: u64, rate: impl FnOnce() -> Result<f64>) -> Result<u64> {
        Ok(match (self.steps, self.images, self.seconds) {
            (Some(steps), ..) => steps,
            (None, Some(images), _) => (images / batch).max(1),
            (None, None, seconds) => {
                ((seconds.expect("one of the three, as checked") * rate()?) as u64).max(1)
            }
        })
    }
}

/// The built-in studies.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum StudyProfile {
    /// Synthetic scenes at 32 pixels, f = 1, 2, 4, 8.
    Quick,
    /// CIFAR-10, f = 1, 2, 4, 8.
    Cifar,
    /// Photographs at 128 pixels, f = 2 to 32.
    Photos,
    /// `ImageNet` at 256 pixels as in the paper, f = 1 to 32.
    Paper,
}

impl StudyProfile {
    /// Returns its name.
    pub fn name(self) -> &'static str {
        match self {
            Self::Quick => "quick",
            Self::Cifar => "cifar",
            Self::Photos => "photos",
            Self::Paper => "paper",
        }
    }

    /// Returns the text of its file.
    pub fn text(self) -> &'static str {
        match self {
            Self::Quick => include_str!("../profiles/quick.yaml"),
            Self::Cifar => include_str!("../profiles/cifar.yaml"),
            Self::Photos => include_str!("../profiles/photos.yaml"),
            Self::Paper => include_str!("../profiles/paper.yaml"),
        }
    }
}
