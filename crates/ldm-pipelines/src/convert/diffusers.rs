//! Diffusers folders.

use std::collections::BTreeMap;
use std::path::Path;

use ldm_autoencoder::FirstStageConfig;
use ldm_checkpoint::{StateDictMapping, Streamed, save_streamed};
use ldm_core::diffusers::VERSION;
use ldm_core::{Error, Result, files};
use serde_json::{Map, Value, json};

use super::ConvertOptions;
use super::pipeline::DiffusersPipeline;
use super::weights::Weights;
use crate::diffusers::folder::MEASURED;
use crate::diffusers::scheduler::to_diffusers;
use crate::tokenizer::{copy_tokenizer, tokenizer_path};
use crate::{LatentDiffusionConfig, ModelConfig, ModelSource, find_tokenizer};

/// A component to be written.
struct ConvertedComponent {
    /// Its folder; none where it is the only component.
    folder: Option<&'static str>,
    /// Library and class.
    class: [String; 2],
    config: Value,
    layout: StateDictMapping,
    /// The prefix of its weights in CompVis' names.
    root: &'static str,
    file: &'static str,
    metadata: BTreeMap<String, String>,
}

const WEIGHTS: &str = "diffusion_pytorch_model.safetensors";

pub(super) fn write(
    source: &ModelSource,
    weights: &Weights,
    out: &Path,
    options: &ConvertOptions,
) -> Result<()> {
    let ModelConfig::LatentDiffusion(config) = &source.config else {
        let config = source.config.first_stage().expect("every other model is a first stage");
        let part = ConvertedComponent { folder: None, ..first_stage(&config, "", weights.scale_factor)? };
        return files::write_folder(out, options.force, |folder| part.write(folder, weights));
    };
    let pipeline = DiffusersPipeline::of(config, weights.scale_factor)?;
    let mut first = first_stage(&config.first_stage_config, "first_stage_model.", weights.scale_factor)?;
    first.folder = Some(pipeline.first_stage);
    if config.scale_by_std || source.measured {
        first.metadata.insert(MEASURED.into(), "true".into());
    }
    let mut parts = vec![first, unet(config)?];
    let mut tokenizer = None;
    if let Some((folder, [library, class], tokenizer_class)) = pipeline.text {
        let conditioner = &config.cond_stage_config;
        parts.push(ConvertedComponent {
            folder: Some(folder),
            class: [library.into(), class.into()],
            config: ldm_conditioning::to_diffusers(conditioner)?,
            layout: ldm_conditioning::diffusers_layout(conditioner)?,
            root: "cond_stage_model.",
            file: "model.safetensors",
            metadata: pytorch(),
        });
        tokenizer = Some((tokenizer_class, TokenizerFiles::of(source, config, options)?));
    }
    let scheduler = match &source.scheduler {
        Some(scheduler) => Value::Object(scheduler.fields.clone()),
        None => to_diffusers(config)?,
    };
    let mut index = Map::new();
    index.insert("_class_name".into(), pipeline.class.into());
    index.insert("_diffusers_version".into(), VERSION.into());
    index.insert("scheduler".into(), json!(["diffusers", scheduler["_class_name"]]));
    for part in &parts {
        index.insert(part.folder.expect("a component of several").into(), json!(part.class));
    }
    if let Some((class, _)) = &tokenizer {
        index.insert("tokenizer".into(), json!(["transformers", class]));
    }
    if pipeline.first_stage == "vae" {
        for name in ["feature_extractor", "image_encoder", "safety_checker"] {
            index.insert(name.into(), json!([null, null]));
        }
        index.insert("requires_safety_checker".into(), false.into());
    }
    files::write_folder(out, options.force, |folder| {
        for part in &parts {
            part.write(folder, weights)?;
        }
        if let Some((_, tokenizer)) = &tokenizer {
            tokenizer.write(&folder.join("tokenizer"))?;
        }
        write_json(&folder.join("scheduler"), "scheduler_config.json", &scheduler)?;
        write_json(folder, "model_index.json", &Value::Object(index))
    })
}

/// Metadata of weights that transformers requires.
fn pytorch() -> BTreeMap<String, String> {
    BTreeMap::from([("format".to_owned(), "pt".to_owned())])
}

fn first_stage(
    config: &FirstStageConfig,
    root: &'static str,
    scale_factor: f64,
) -> Result<ConvertedComponent> {
    let json = ldm_autoencoder::to_diffusers(config, scale_factor)?;
    let class = json["_class_name"].as_str().unwrap_or_default().to_owned();
    Ok(ConvertedComponent {
        folder: None,
        class: ["diffusers".into(), class],
        config: json,
        layout: ldm_autoencoder::diffusers_layout(config)?,
        root,
        file: WEIGHTS,
        metadata: pytorch(),
    })
}

fn unet(config: &LatentDiffusionConfig) -> Result<ConvertedComponent> {
    // diffusers takes the size of samples from here.
    let mut unet = config.unet().clone();
    unet.image_size = Some([config.image_size; 2]);
    let json = ldm_unet::to_diffusers(&unet)?;
    let class = json["_class_name"].as_str().unwrap_or_default().to_owned();
    Ok(ConvertedComponent {
        folder: Some("unet"),
        class: ["diffusers".into(), class],
        config: json,
        layout: ldm_unet::diffusers_layout(&unet)?,
        root: "model.diffusion_model.",
        file: WEIGHTS,
        metadata: pytorch(),
    })
}

impl ConvertedComponent {
    fn write(&self, root: &Path, weights: &Weights) -> Result<()> {
        let folder = self.folder.map_or_else(|| root.to_path_buf(), |name| root.join(name));
        write_json(&folder, "config.json", &self.config)?;
        let tensors: Vec<Streamed> = weights.mapped(self.root, &self.layout);
        save_streamed(folder.join(self.file), &tensors, &self.metadata)
    }
}

/// Contents of `tokenizer/`.
enum TokenizerFiles {
    /// A transformers folder, copied.
    Existing(std::path::PathBuf),
    /// Files converted from another format.
    Converted(Vec<(&'static str, String)>),
}

impl TokenizerFiles {
    fn of(source: &ModelSource, config: &LatentDiffusionConfig, options: &ConvertOptions) -> Result<Self> {
        let conditioner = &config.cond_stage_config;
        let kind = conditioner.tokenizer_kind().expect("a text pipeline");
        let (given, folder) = (options.tokenizer.as_deref(), source.folder.as_deref());
        let found = tokenizer_path(kind, given, folder);
        // Opened even if it is copied, to report damage now.
        let Some(tokenizer) = find_tokenizer(conditioner, given, folder)? else {
            return Err(Error::invalid(format!(
                "tokenizer: expected one for a diffusers folder of a text model, got none; try `ldm weights get {}` or \
                 --tokenizer PATH",
                kind.download()
            )));
        };
        if let Some(path) = found.filter(|path| path.join("tokenizer_config.json").is_file()) {
            return Ok(Self::Existing(path));
        }
        let length = match conditioner {
            ldm_conditioning::ConditionerConfig::ClipText(clip) => clip.max_length,
            ldm_conditioning::ConditionerConfig::Bert(bert) => bert.max_seq_len,
            _ => unreachable!("a text pipeline"),
        };
        Ok(Self::Converted(tokenizer.transformers_files(length)?))
    }

    fn write(&self, folder: &Path) -> Result<()> {
        match self {
            Self::Existing(path) => copy_tokenizer(path, folder),
            Self::Converted(files) => {
                files::make_folder(folder)?;
                files
                    .iter()
                    .try_for_each(|(name, text)| files::write_bytes(folder.join(name), text.as_bytes()))
            }
        }
    }
}

fn write_json(folder: &Path, name: &str, value: &Value) -> Result<()> {
    files::make_folder(folder)?;
    files::write_bytes(folder.join(name), format!("{value:#}\n").as_bytes())
}
