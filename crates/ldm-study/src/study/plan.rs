//! The training configs of a study, all checked before the first run.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use ldm_autoencoder::{FirstStageConfig, ImageKind};
use ldm_core::config::{self, Value};
use ldm_core::{Error, Result, files};
use ldm_data::Dataset;
use ldm_pipelines::ModelConfig;
use ldm_train::{DataConfig, RunConfig};
use serde_json::json;

use super::study_dir::StudyDir;
use super::study_file::{FactorConfig, StudyFile};
use crate::context::{Context, bail};

/// The study's file, its folder, and the side of its images.
struct StudyPlace<'a> {
    path: &'a Path,
    root: &'a Path,
    side: i64,
}

/// The runs of one factor.
pub(super) struct FactorRuns {
    f: i64,
    first_stage: Option<RunConfig>,
    diffusion: RunConfig,
}

/// Plans every run of the study at `path`, with its folder at `root`.
pub(super) fn plan(study: &StudyFile, path: &Path, root: &Path) -> Result<Vec<FactorRuns>> {
    for (key, tree) in [("first_stage", &study.first_stage), ("diffusion", &study.diffusion)] {
        if tree["train"].get("steps").is_some() {
            bail!("{}: {key}.train.steps: expected no such key; try study.budget.{key}", path.display());
        }
    }
    let side = image_side(study, path)?;
    let factors = study.study.factors.iter().map(|factor| {
        let of = || format!("f = {}", factor.f);
        let first_stage = first_stage(study, factor, path).with_context(of)?;
        let place = StudyPlace { path, root, side };
        let diffusion = diffusion(study, factor, first_stage.as_ref(), &place).with_context(of)?;
        Ok(FactorRuns { f: factor.f, first_stage, diffusion })
    });
    factors.collect()
}

/// Returns the side of the training images in pixels.
fn image_side(study: &StudyFile, path: &Path) -> Result<i64> {
    let tree = config::to_text(&study.diffusion["data"]);
    let DataConfig::DataModule(module) = config::parse(&tree, path, &[]).context("diffusion.data")?;
    let folder = path.parent().unwrap_or(Path::new("."));
    let [_, height, width] = module.train.open(folder)?.get(0, 0)?.size;
    if height != width {
        bail!("{}: diffusion.data: expected square images, got {width}x{height}", path.display());
    }
    Ok(height as i64)
}

/// Returns the images to evaluate a run on: its validation set, or its training set where there is none.
pub(super) fn open_held_out(run: &RunConfig) -> Result<Arc<dyn Dataset>> {
    let set = run.data.validation.as_ref().unwrap_or(&run.data.train);
    set.open(Path::new("."))
}

fn overrides(keys: &BTreeMap<String, Value>) -> Vec<String> {
    keys.iter()
        .map(|(key, value)| format!("{key}={}", serde_json::to_string(value).expect("YAML values serialize")))
        .collect()
}

/// Returns a run's config: the shared one with a factor's overrides.
fn merged(tree: &Value, keys: &[String], path: &Path) -> Result<RunConfig> {
    // Merged before parsing, so that errors name only the key.
    let tree = config::merge(&config::to_text(tree), path, keys)?;
    RunConfig::parse(&config::to_text(&tree), path, &[])
}

/// Returns the first stage of a factor; none for f = 1, diffusion in pixels.
fn first_stage(study: &StudyFile, factor: &FactorConfig, path: &Path) -> Result<Option<RunConfig>> {
    if factor.f == 1 {
        return Ok(None);
    }
    let run = merged(&study.first_stage, &overrides(&factor.first_stage), path).context("first_stage")?;
    let found = match run.model.first_stage() {
        Some(FirstStageConfig::Kl(config)) => config.ddconfig.factor(),
        Some(FirstStageConfig::Vq(config)) => config.ddconfig.factor(),
        _ => bail!("first_stage.model: expected a first stage, `kl` or `vq`"),
    };
    if let Some(stage) = run.model.first_stage()
        && stage.input() != ImageKind::Pixels(3)
    {
        bail!(
            "first_stage.model: expected a first stage of RGB images, since LPIPS and FID compare those, got one of {} \
             channels",
            stage.input().channels()
        );
    }
    if found != factor.f {
        bail!(
            "first_stage: expected a `ch_mult` for f = {}, got one for f = {found}; each level after the first halves the sides",
            factor.f
        );
    }
    Ok(Some(run))
}

fn diffusion(
    study: &StudyFile,
    factor: &FactorConfig,
    first_stage: Option<&RunConfig>,
    StudyPlace { path, root, side }: &StudyPlace,
) -> Result<RunConfig> {
    if side % factor.f != 0 {
        bail!("expected an f that divides the sides, got images of {side}x{side} pixels");
    }
    let (section, channels) = match first_stage {
        None => (json!({"target": "identity"}), 3),
        Some(run) => {
            let channels = match run.model.first_stage() {
                Some(FirstStageConfig::Kl(config)) => config.embed_dim,
                Some(FirstStageConfig::Vq(config)) => config.embed_dim,
                _ => unreachable!("first_stage() refuses everything else"),
            };
            let mut tree: Value = config::parse(&run.model_text(), path, &[])?;
            let mut section = std::mem::take(&mut tree["model"]);
            if let Some(section) = section.as_mapping_mut() {
                section.retain(|key, _| key == "target" || key == "params");
            }
            section["params"]["ckpt_path"] =
                root.join(format!("f{}", factor.f)).join("first-stage").display().to_string().into();
            if let Some(params) = section["params"].as_mapping_mut() {
                params.remove("lossconfig");
            }
            (serde_json::to_value(section).context("first_stage")?, channels)
        }
    };
    // Derived from the factor; its overrides come later and take precedence.
    let latent = side / factor.f;
    let mut keys = vec![
        format!("model.params.first_stage_config={section}"),
        format!("model.params.image_size={latent}"),
        format!("model.params.channels={channels}"),
        format!("model.params.unet_config.params.image_size={latent}"),
        format!("model.params.unet_config.params.in_channels={channels}"),
        format!("model.params.unet_config.params.out_channels={channels}"),
    ];
    keys.extend(overrides(&factor.diffusion));
    let run = merged(&study.diffusion, &keys, path).context("diffusion")?;
    let ModelConfig::LatentDiffusion(model) = &run.model else {
        bail!("diffusion.model: expected a diffusion model, `latent_diffusion`");
    };
    let halved = model.unet().channel_mult.len() as u32 - 1;
    if latent % 2_i64.pow(halved) != 0 {
        bail!(
            "expected latents that the U-Net can halve {halved} times, got {latent}x{latent} of images of {side}x{side} \
             pixels; try a shorter channel_mult or larger images"
        );
    }
    Ok(run)
}

impl FactorRuns {
    /// Writes the configs.
    pub(super) fn write(&self, folder: &StudyDir) -> Result<()> {
        let root = folder.of(self.f, "");
        std::fs::create_dir_all(&root).map_err(Error::io(&root))?;
        if let Some(run) = &self.first_stage {
            files::write_bytes(folder.of(self.f, "first-stage.yaml"), run.to_text().as_bytes())?;
        }
        files::write_bytes(folder.of(self.f, "diffusion.yaml"), self.diffusion.to_text().as_bytes())
    }
}
