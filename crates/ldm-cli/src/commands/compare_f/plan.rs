//! From a study to the runs it is made of: a config for each, complete, and everything that can be wrong said before the
//! first is started.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use anyhow::{Context, bail};
use ldm_autoencoder::FirstStageConfig;
use ldm_core::config::{self, Value};
use ldm_core::files;
use ldm_data::Dataset;
use ldm_pipelines::ModelConfig;
use ldm_train::{DataConfig, RunConfig};
use serde_json::json;

use super::config::{FactorConfig, StudyFile};
use super::layout::Folder;

/// Where a study's file and its folder are, and how large its images.
struct Place<'a> {
    path: &'a Path,
    root: &'a Path,
    side: i64,
}

/// The runs of one factor.
pub(super) struct Runs {
    f: i64,
    first_stage: Option<RunConfig>,
    diffusion: RunConfig,
}

/// Plans every run of the study at `path`, to lie under `root`.
pub(super) fn plan(study: &StudyFile, path: &Path, root: &Path) -> anyhow::Result<Vec<Runs>> {
    for (key, tree) in [("first_stage", &study.first_stage), ("diffusion", &study.diffusion)] {
        if tree["train"].get("steps").is_some() {
            bail!("{}: {key}.train.steps: study.budget.{key} says how long is trained", path.display());
        }
    }
    let side = image_side(study, path)?;
    let factors = study.study.factors.iter().map(|factor| {
        let of = || format!("f = {}", factor.f);
        let first_stage = first_stage(study, factor, path).with_context(of)?;
        let place = Place { path, root, side };
        let diffusion = diffusion(study, factor, first_stage.as_ref(), &place).with_context(of)?;
        Ok(Runs { f: factor.f, first_stage, diffusion })
    });
    factors.collect()
}

/// Side in pixels of the images that diffusion models are trained on.
fn image_side(study: &StudyFile, path: &Path) -> anyhow::Result<i64> {
    let tree = config::to_text(&study.diffusion["data"]);
    let DataConfig::DataModule(module) = config::parse(&tree, path, &[]).context("diffusion.data")?;
    let beside = path.parent().unwrap_or(Path::new("."));
    let [_, height, width] = module.train.open(beside)?.get(0, 0)?.size;
    if height != width {
        bail!("{}: diffusion.data: expected square images, got: {width}x{height}", path.display());
    }
    Ok(height as i64)
}

/// The images a run is measured by.
pub(super) fn open_held_back(run: &RunConfig) -> anyhow::Result<Arc<dyn Dataset>> {
    let set = run.data.validation.as_ref().unwrap_or(&run.data.train);
    Ok(set.open(Path::new("."))?)
}

fn overrides(keys: &BTreeMap<String, Value>) -> Vec<String> {
    keys.iter()
        .map(|(key, value)| format!("{key}={}", serde_json::to_string(value).expect("a tree of YAML")))
        .collect()
}

/// A run's config of what all have in common and a factor's own keys.
fn merged(tree: &Value, keys: &[String], path: &Path) -> anyhow::Result<RunConfig> {
    // Merged before it is read: an error names its key, and not all the others.
    let tree = config::merge(&config::to_text(tree), path, keys)?;
    Ok(RunConfig::parse(&config::to_text(&tree), path, &[])?)
}

/// Nothing for f = 1: that is diffusion in pixels.
fn first_stage(study: &StudyFile, factor: &FactorConfig, path: &Path) -> anyhow::Result<Option<RunConfig>> {
    if factor.f == 1 {
        return Ok(None);
    }
    let run = merged(&study.first_stage, &overrides(&factor.first_stage), path).context("first_stage")?;
    let found = match run.model.first_stage() {
        Some(FirstStageConfig::Kl(config)) => config.ddconfig.factor(),
        Some(FirstStageConfig::Vq(config)) => config.ddconfig.factor(),
        _ => bail!("first_stage.model: expected a first stage, `kl` or `vq`"),
    };
    if found != factor.f {
        bail!(
            "first_stage: `ch_mult` has levels for f = {found}, and this is f = {}: a level more halves the latent's sides",
            factor.f
        );
    }
    Ok(Some(run))
}

fn diffusion(
    study: &StudyFile,
    factor: &FactorConfig,
    first_stage: Option<&RunConfig>,
    Place { path, root, side }: &Place,
) -> anyhow::Result<RunConfig> {
    if side % factor.f != 0 {
        bail!("images of {side}x{side} pixels, whose sides f does not divide");
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
            (serde_json::to_value(section)?, channels)
        }
    };
    // What follows from the factor; a factor's own keys come after, and win.
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
            "images of {side}x{side} pixels have latents of {latent}x{latent}, which the U-Net cannot halve {halved} times: \
             give it a shorter channel_mult, or the data larger images"
        );
    }
    Ok(run)
}

impl Runs {
    /// Writes the runs' configs.
    pub(super) fn write(&self, folder: &Folder) -> anyhow::Result<()> {
        let root = folder.of(self.f, "");
        std::fs::create_dir_all(&root).with_context(|| root.display().to_string())?;
        if let Some(run) = &self.first_stage {
            files::write_bytes(folder.of(self.f, "first-stage.yaml"), run.to_text().as_bytes())?;
        }
        Ok(files::write_bytes(folder.of(self.f, "diffusion.yaml"), self.diffusion.to_text().as_bytes())?)
    }
}
