//! Conversion of models to a model folder, a CompVis checkpoint or a diffusers folder, tensor by tensor, without
//! building a network.

mod blend;
mod compvis;
mod diffusers;
mod ldm;
mod pipeline;
mod weights;

use std::path::{Path, PathBuf};
use std::str::FromStr;

use ldm_core::{Error, Result};
use serde_yaml::{Mapping, Value};
use tch::Kind;

use crate::lora::LoraFile;
use crate::{ModelConfig, ModelSource};
pub use blend::CheckpointMerge;
use weights::Weights;
pub(crate) use weights::measured;

/// The format to convert to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ConvertTarget {
    /// A folder of `config.yaml`, `model.safetensors` and `tokenizer/`.
    Ldm,
    /// One file as CompVis' code reads it, `.safetensors` by its name, else of `torch.save`, and next to it
    /// `NAME.yaml`, the config in CompVis' format.
    Compvis,
    /// A diffusers folder; for a first stage alone, a folder of one component.
    Diffusers,
}

impl FromStr for ConvertTarget {
    type Err = Error;

    fn from_str(word: &str) -> Result<Self> {
        match word {
            "ldm" => Ok(Self::Ldm),
            "compvis" => Ok(Self::Compvis),
            "diffusers" => Ok(Self::Diffusers),
            _ => Err(Error::invalid(format!("expected ldm, compvis or diffusers, got {word}"))),
        }
    }
}

/// Options of [`convert`].
#[derive(Debug, Clone)]
pub struct ConvertOptions {
    /// The format.
    pub to: ConvertTarget,
    /// The dtype of the weights; that of the source where absent. Buffers are not cast.
    pub kind: Option<Kind>,
    /// EMA weights, where the source has them. The output holds one set of weights.
    pub ema: bool,
    /// The tokenizer of a text model; that of [`find_tokenizer`](crate::find_tokenizer) where absent.
    pub tokenizer: Option<PathBuf>,
    /// Other models to merge with the source, before the LoRAs.
    pub merge: Option<CheckpointMerge>,
    /// LoRAs to merge into the weights.
    pub loras: Vec<LoraFile>,
    /// Overwrite an existing output.
    pub force: bool,
}

/// Files and folders of converted models.
const WRITTEN: [&str; 20] = [
    "bert",
    "config.json",
    "config.yaml",
    "diffusion_pytorch_model.safetensors",
    "merges.txt",
    "model.safetensors",
    "model_index.json",
    "remap.npy",
    "scheduler",
    "scheduler_config.json",
    "special_tokens_map.json",
    "text_encoder",
    "tokenizer",
    "tokenizer.json",
    "tokenizer_config.json",
    "unet",
    "vae",
    "vocab.json",
    "vocab.txt",
    "vqvae",
];

/// Checks that `out`, where it exists, may be replaced by a model of the format `to`: a folder that holds nothing but a
/// converted model by a folder, a checkpoint by a checkpoint, and the config of a model next to it by another one.
///
/// # Errors
/// [`Error::Invalid`] with the file or the first other entry; [`Error::Io`].
pub fn check_replaceable(out: &Path, to: ConvertTarget) -> Result<()> {
    if out.is_file() && to != ConvertTarget::Compvis {
        return Err(Error::expected(
            out.display(),
            "the folder of a converted model to replace by a folder",
            "a file; try another path",
        ));
    }
    if out.is_dir() {
        return check_folder(out);
    }
    if to == ConvertTarget::Compvis {
        compvis::check_replaceable(out)?;
    }
    Ok(())
}

/// Checks that a folder holds nothing but a converted model.
fn check_folder(folder: &Path) -> Result<()> {
    for entry in std::fs::read_dir(folder).map_err(Error::io(folder))? {
        let entry = entry.map_err(Error::io(folder))?;
        let path = entry.path();
        if !entry.file_name().to_str().is_some_and(|name| WRITTEN.contains(&name)) {
            return Err(Error::expected(
                folder.display(),
                "only files of a converted model in a folder that is replaced",
                format!("{}; try another path", path.display()),
            ));
        }
        // A link counts as a file: what it points to is not removed.
        if entry.file_type().map_err(Error::io(&path))?.is_dir() {
            check_folder(&path)?;
        }
    }
    Ok(())
}

/// Writes the model `source` to `out`, whole or not at all.
///
/// Values and shapes are unchanged except by `kind`, `merge` and `loras`: a round trip through CompVis' or diffusers' format is
/// exact. Model folders and CompVis checkpoints also hold the twelve buffers of the schedule. Leftovers of training
/// (discriminators, EMA copies, copies of the first stage) are dropped.
///
/// `note` is given messages for the user.
///
/// # Errors
/// Before writing: [`Error::Weights`] when the weights do not match the config, [`Error::Format`] when a model to merge is
/// another, those of [`Lora::read`](crate::lora::Lora::read), [`Error::Invalid`] with the key that the format cannot express,
/// [`Error::Io`] when `out` exists, [`Error::Invalid`] when it is a folder with other files, or a file where a folder is
/// written. While writing: [`Error::Io`]; partial output is removed.
pub fn convert(
    source: &ModelSource,
    out: &Path,
    options: &ConvertOptions,
    note: &mut dyn FnMut(&str),
) -> Result<()> {
    if options.force {
        check_replaceable(out, options.to)?;
    }
    let weights = Weights::of(source, options)?;
    if let Some(checker) = source.folder.as_ref().map(|folder| folder.join("safety_checker"))
        && checker.is_dir()
    {
        note(&format!("{}: left out; try it as --safety-checker", checker.display()));
    }
    match options.to {
        ConvertTarget::Ldm => ldm::write(source, &weights, out, options, note),
        ConvertTarget::Compvis => compvis::write(source, &weights, out, options, note),
        ConvertTarget::Diffusers => diffusers::write(source, &weights, out, options),
    }
}

/// The config of converted weights, without `ckpt_path`s: all weights are in one file.
fn whole(source: &ModelSource) -> ModelConfig {
    let mut config = source.config.clone();
    match &mut config {
        ModelConfig::Kl(kl) => (kl.ckpt_path, kl.ignore_keys) = (None, Vec::new()),
        ModelConfig::Vq(vq) => (vq.ckpt_path, vq.ignore_keys) = (None, Vec::new()),
        ModelConfig::Classifier(classifier) => classifier.ckpt_path = None,
        ModelConfig::LatentDiffusion(model) => {
            use ldm_autoencoder::FirstStageConfig::{Identity, Kl, Vq};
            (model.ckpt_path, model.ignore_keys) = (None, Vec::new());
            if source.measured {
                (model.scale_by_std, model.scale_factor) = (true, 1.);
            }
            match &mut model.first_stage_config {
                Kl(kl) => (kl.ckpt_path, kl.ignore_keys) = (None, Vec::new()),
                Vq(vq) => (vq.ckpt_path, vq.ignore_keys) = (None, Vec::new()),
                Identity(_) => {}
            }
        }
    }
    config
}

/// `model: {target, params}` of a config, without absent fields.
pub(crate) fn tree(config: &ModelConfig) -> Mapping {
    let mut model = serde_yaml::to_value(config).expect("a valid YAML tree");
    prune(&mut model);
    let mut tree = Mapping::new();
    tree.insert("model".into(), model);
    tree
}

/// Drops nulls, which mean the same as absent keys.
fn prune(value: &mut Value) {
    match value {
        Value::Mapping(map) => {
            map.retain(|_, value| !value.is_null());
            map.iter_mut().for_each(|(_, value)| prune(value));
        }
        Value::Sequence(list) => list.iter_mut().for_each(prune),
        _ => {}
    }
}

/// The path of the list of used codes, a separate file.
fn remap(config: &mut ModelConfig) -> Option<&mut PathBuf> {
    use ldm_autoencoder::FirstStageConfig;
    match config {
        ModelConfig::Vq(vq) => vq.remap.as_mut(),
        ModelConfig::LatentDiffusion(model) => match &mut model.first_stage_config {
            FirstStageConfig::Vq(vq) => vq.remap.as_mut(),
            _ => None,
        },
        ModelConfig::Kl(_) | ModelConfig::Classifier(_) => None,
    }
}
