//! The file of a study: which factors, on what budget, how measured; and the two trainings that all have in common.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use anyhow::bail;
use ldm_core::config::{self, Value};
use serde::{Deserialize, Serialize};

/// The whole file.
#[derive(Debug, Clone, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct StudyFile {
    pub(crate) study: StudyConfig,
    /// A run's config, as `ldm train` reads it: what first stages have in common.
    pub(crate) first_stage: Value,
    /// A run's config without `first_stage_config`: what diffusion models have in common.
    pub(crate) diffusion: Value,
}

/// What is compared, and how.
#[derive(Debug, Clone, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct StudyConfig {
    pub(crate) factors: Vec<FactorConfig>,
    pub(crate) budget: Budgets,
    pub(crate) measure: MeasureConfig,
}

/// One value of f.
#[derive(Debug, Clone, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct FactorConfig {
    /// How many times smaller a side of the latent is. 1 has no first stage: diffusion in pixels.
    pub(crate) f: i64,
    /// Keys of the first stage's config (`model.params.embed_dim: 4`) that are this factor's own.
    #[serde(default)]
    pub(crate) first_stage: BTreeMap<String, Value>,
    /// Those of the diffusion model's.
    #[serde(default)]
    pub(crate) diffusion: BTreeMap<String, Value>,
}

/// How long is trained, the same for every factor.
#[derive(Debug, Clone, Copy, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Budgets {
    pub(crate) first_stage: Budget,
    pub(crate) diffusion: Budget,
}

/// One of the three.
#[derive(Debug, Clone, Copy, Default, Deserialize, Serialize)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct Budget {
    /// Optimizer steps.
    pub(crate) steps: Option<u64>,
    /// ImageSet seen.
    pub(crate) images: Option<u64>,
    /// Seconds on this device: a short trial before the run makes steps of them, so that the run's learning rate knows its
    /// end, and a run that is resumed ends where it would have.
    pub(crate) seconds: Option<f64>,
}

/// How it is measured.
#[derive(Debug, Clone, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct MeasureConfig {
    /// ImageSet made for each measurement.
    pub(crate) images: usize,
    /// Held-back images they are compared with.
    pub(crate) reference: usize,
    /// Held-back images that are encoded and decoded.
    pub(crate) reconstructions: usize,
    /// How often a diffusion model is measured while it is trained, at equal distances, the end included.
    pub(crate) points: u64,
    /// DDIM steps of these measurements (100 in the paper's Figure 6).
    pub(crate) progress_steps: usize,
    /// Numbers of DDIM steps at which the trained model is measured and timed (10 to 200 in the paper's Figure 7).
    pub(crate) sampling_steps: Vec<usize>,
    #[serde(default = "one")]
    pub(crate) eta: f64,
    #[serde(default = "one")]
    pub(crate) guidance_scale: f64,
    #[serde(default = "batch")]
    pub(crate) batch_size: usize,
}

fn one() -> f64 {
    1.
}

fn batch() -> usize {
    64
}

impl StudyFile {
    /// Reads a study's text, with `overrides` of the form `study.measure.images=64`.
    pub(crate) fn parse(text: &str, path: &Path, overrides: &[String]) -> anyhow::Result<Self> {
        let study: Self = config::parse(text, path, overrides)?;
        study.check(path)?;
        Ok(study)
    }

    fn check(&self, path: &Path) -> anyhow::Result<()> {
        let (study, path) = (&self.study, path.display());
        let mut seen = BTreeSet::new();
        for factor in &study.factors {
            if factor.f < 1 || !seen.insert(factor.f) {
                bail!("{path}: study.factors: expected each f once and at least 1, got: {}", factor.f);
            }
            if factor.f == 1 && !factor.first_stage.is_empty() {
                bail!("{path}: study.factors: f = 1 has no first stage to configure");
            }
        }
        if study.factors.is_empty() {
            bail!("{path}: study.factors: nothing to compare");
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
                bail!("{path}: study.measure.{key}: expected at least {least}, got: {value}");
            }
        }
        Ok(())
    }

    /// The text of the file, complete.
    pub(crate) fn to_text(&self) -> String {
        config::to_text(&serde_yaml::to_value(self).expect("plain numbers and words"))
    }
}

impl Budget {
    /// Steps of `batch` images, at `rate` steps a second.
    pub(crate) fn steps(
        &self,
        batch: u64,
        rate: impl FnOnce() -> anyhow::Result<f64>,
    ) -> anyhow::Result<u64> {
        Ok(match (self.steps, self.images, self.seconds) {
            (Some(steps), ..) => steps,
            (None, Some(images), _) => (images / batch).max(1),
            (None, None, seconds) => {
                ((seconds.expect("one of the three, as checked") * rate()?) as u64).max(1)
            }
        })
    }
}
