//! From any model that is readable to a folder of ours, a CompVis file, or a diffusers folder. No network is built:
//! tensors go from file to file one at a time.

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
use weights::Weights;

/// What to make of a model.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ConvertTarget {
    /// A folder of `config.yaml`, `model.safetensors` and `tokenizer/`.
    Ldm,
    /// One file as CompVis' code reads it: `.safetensors` where its name says so, else what `torch.save` writes. Beside
    /// it lies `NAME.yaml`, the config in CompVis' words.
    Compvis,
    /// A diffusers folder; of a first stage alone that of one component.
    Diffusers,
}

impl FromStr for ConvertTarget {
    type Err = Error;

    fn from_str(word: &str) -> Result<Self> {
        match word {
            "ldm" => Ok(Self::Ldm),
            "compvis" => Ok(Self::Compvis),
            "diffusers" => Ok(Self::Diffusers),
            _ => Err(Error::invalid(format!("expected ldm, compvis or diffusers, got: {word}"))),
        }
    }
}

/// How to convert.
#[derive(Debug, Clone)]
pub struct Converting {
    /// To what.
    pub to: ConvertTarget,
    /// The dtype of the weights; that of the source where absent. Buffers keep theirs.
    pub kind: Option<Kind>,
    /// Running averages in place of weights, where the source holds both. What is written holds one of them.
    pub ema: bool,
    /// The tokenizer of a text model; looked for as [`find_tokenizer`](crate::find_tokenizer) does where absent.
    pub tokenizer: Option<PathBuf>,
    /// LoRAs to be added to the weights.
    pub loras: Vec<LoraFile>,
    /// Replace what is there.
    pub force: bool,
}

/// Writes the model `source` to `out`, whole or not at all.
///
/// Values, shapes and the order of bytes stay as they are but for `kind` and `loras`: ours to CompVis' or diffusers' and back is the
/// same to the bit. Beside weights, ours and CompVis' hold the twelve buffers of the schedule. What follows from the
/// config or is left over from training (discriminators, averages, copies of the first stage) is not handed on.
///
/// `note` hears what a person may want to know.
///
/// # Errors
/// Before anything is written: [`Error::Weights`] when the source is not the model its config says, those of
/// [`Lora::read`](crate::lora::Lora::read),
/// [`Error::Invalid`] with the key that the other side cannot express, [`Error::Io`] when `out` is there. While
/// writing: [`Error::Io`], and nothing is left.
pub fn convert(source: &ModelSource, out: &Path, how: &Converting, note: &mut dyn FnMut(&str)) -> Result<()> {
    let weights = Weights::of(source, how)?;
    match how.to {
        ConvertTarget::Ldm => ldm::write(source, &weights, out, how, note),
        ConvertTarget::Compvis => compvis::write(source, &weights, out, how, note),
        ConvertTarget::Diffusers => diffusers::write(source, &weights, out, how),
    }
}

/// The config that goes with converted weights: they are all in one place, so it names no other.
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

/// `model: {target, params}` of a config, without what is absent.
fn tree(config: &ModelConfig) -> Mapping {
    let mut model = serde_yaml::to_value(config).expect("plain words and numbers");
    prune(&mut model);
    let mut tree = Mapping::new();
    tree.insert("model".into(), model);
    tree
}

/// Drops nulls: they say what leaving the key out says.
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

/// The list of the codes in use, a file of its own that the config names.
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
