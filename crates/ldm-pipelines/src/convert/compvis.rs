//! One file as CompVis' code reads it, and the config in its words.

use std::path::Path;

use ldm_checkpoint::{Streamed, save_streamed, save_torch_streamed};
use ldm_conditioning::{ClipTextConfig, ConditionerConfig};
use ldm_core::config::{Value, to_text};
use ldm_core::{Error, Result, files};
use ldm_schedulers::Parameterization;
use serde_yaml::Mapping;

use super::weights::Weights;
use super::{Converting, tree, whole};
use crate::{ModelConfig, ModelSource};

/// Classes by the keys that hold them and our words, and our fields that their constructors do not take.
const CLASSES: [(&str, &str, &str, &[&str]); 14] = [
    (
        "model",
        "latent_diffusion",
        "ldm.models.diffusion.ddpm.LatentDiffusion",
        &["concat_keys", "zero_terminal_snr"],
    ),
    ("model", "kl", "ldm.models.autoencoder.AutoencoderKL", &[]),
    ("model", "vq", "ldm.models.autoencoder.VQModel", &["beta", "legacy", "unknown_index"]),
    ("unet_config", "unet", "ldm.modules.diffusionmodules.openaimodel.UNetModel", &[]),
    ("first_stage_config", "kl", "ldm.models.autoencoder.AutoencoderKL", &[]),
    (
        "first_stage_config",
        "vq",
        "ldm.models.autoencoder.VQModelInterface",
        &["beta", "legacy", "unknown_index"],
    ),
    ("first_stage_config", "identity", "ldm.models.autoencoder.IdentityFirstStage", &[]),
    ("cond_stage_config", "class", "ldm.modules.encoders.modules.ClassEmbedder", &["null_class"]),
    ("cond_stage_config", "bert", "ldm.modules.encoders.modules.BERTEmbedder", &[]),
    ("cond_stage_config", "transformer", "ldm.modules.encoders.modules.TransformerEmbedder", &[]),
    (
        "cond_stage_config",
        "clip_text",
        "ldm.modules.encoders.modules.FrozenCLIPEmbedder",
        &[
            "hidden_size",
            "intermediate_size",
            "num_hidden_layers",
            "num_attention_heads",
            "vocab_size",
            "max_position_embeddings",
            "hidden_act",
            "layer_norm_eps",
        ],
    ),
    ("cond_stage_config", "spatial", "ldm.modules.encoders.modules.SpatialRescaler", &[]),
    ("cond_stage_config", "identity", "torch.nn.Identity", &[]),
    ("lossconfig", "reconstruction", "torch.nn.Identity", &[]),
];

pub(super) fn write(
    source: &ModelSource,
    weights: &Weights,
    out: &Path,
    how: &Converting,
    note: &mut dyn FnMut(&str),
) -> Result<()> {
    let beside = out.with_extension("yaml");
    for path in [out, &beside] {
        let directory = path.is_dir();
        if path.exists() && (!how.force || directory) {
            let kind =
                if directory { std::io::ErrorKind::IsADirectory } else { std::io::ErrorKind::AlreadyExists };
            return Err(Error::io(path)(kind.into()));
        }
    }
    if out == beside {
        return Err(Error::format(out, "expected a name for weights, as NAME.ckpt or NAME.safetensors"));
    }
    let mut config = whole(source);
    let mut tensors = weights.native();
    if let ModelConfig::LatentDiffusion(model) = &mut config {
        // The averages are the weights, so the reference must not ask for both.
        model.use_ema = false;
        if model.parameterization == Parameterization::V {
            note("CompVis' code knows eps and x0 alone, and not the parameterization v of this model");
        }
        if model.zero_terminal_snr {
            note(
                "CompVis' words have no zero_terminal_snr: this model samples well only where its schedule is rescaled",
            );
        }
        if let ConditionerConfig::Class(class) = &model.cond_stage_config
            && class.null_class.is_some_and(|null| null != 1000)
        {
            note(
                "CompVis' words have no null_class: to guide this model it must be given again, in the config",
            );
        }
        if model.cond_stage_config == ConditionerConfig::FirstStage {
            // The reference's state dict holds the first stage twice.
            tensors.extend(weights.copied("first_stage_model.", "cond_stage_model."));
        }
    }
    tensors.extend(Streamed::each(&weights.buffers));
    let mut metadata = weights.metadata();
    metadata.entry("global_step".into()).or_insert_with(|| "0".into());
    let text = to_text(&Value::Mapping(in_their_words(&config)));
    let replaced = out.exists();
    if out.extension().is_some_and(|extension| extension == "safetensors") {
        save_streamed(out, &tensors, &metadata)?;
    } else {
        save_torch_streamed(out, &tensors, &metadata)?;
    }
    let written = files::write_bytes(&beside, text.as_bytes());
    // What stands in an older file's place is whole, and all there is.
    if written.is_err() && !replaced {
        drop(std::fs::remove_file(out));
    }
    written
}

/// The config as CompVis' `instantiate_from_config` takes it.
fn in_their_words(config: &ModelConfig) -> Mapping {
    let mut words = tree(config);
    translate(&mut words);
    if let ModelConfig::LatentDiffusion(model) = config
        && let Some(unet) = words["model"]["params"]["unet_config"]["params"].as_mapping_mut()
    {
        // Theirs has no default.
        unet.entry("image_size".into()).or_insert_with(|| model.image_size.into());
    }
    words
}

fn translate(map: &mut Mapping) {
    for (key, value) in map.iter_mut() {
        let (key, Some(section)) = (key.as_str().unwrap_or_default().to_owned(), value.as_mapping_mut())
        else {
            continue;
        };
        let word = section.get("target").and_then(Value::as_str).unwrap_or_default().to_owned();
        let class = CLASSES.iter().find(|(at, ours, ..)| *at == key && *ours == word);
        if let Some((_, _, theirs, left_out)) = class {
            section.insert("target".into(), (*theirs).into());
            if theirs.starts_with("torch.nn.") {
                section.remove("params");
            }
            if let Some(params) = section.get_mut("params").and_then(Value::as_mapping_mut) {
                let usual = match word.as_str() {
                    // Theirs takes the sizes from the network it names, which has no other ones.
                    "clip_text" => {
                        serde_yaml::to_value(ClipTextConfig::default()).expect("words and numbers")
                    }
                    _ => Value::Null,
                };
                params.retain(|name, value| {
                    let ours = name.as_str().is_some_and(|name| left_out.contains(&name));
                    !ours || usual.get(name).is_some_and(|usual| usual != value)
                });
                if word == "kl" || word == "vq" {
                    // Theirs has no default; a discriminator would ask for weights that are not handed on.
                    let mut none = Mapping::new();
                    none.insert("target".into(), "torch.nn.Identity".into());
                    params.insert("lossconfig".into(), Value::Mapping(none));
                }
            }
        }
        translate(section);
    }
}
