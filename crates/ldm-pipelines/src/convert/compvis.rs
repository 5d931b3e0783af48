//! CompVis checkpoints and configs.

use std::path::Path;

use ldm_checkpoint::{Checkpoint, Streamed, save_streamed, save_torch_streamed};
use ldm_conditioning::{ClipTextConfig, ConditionerConfig};
use ldm_core::config::{Value, to_text};
use ldm_core::{Error, Result, files, text};
use ldm_schedulers::Parameterization;
use serde_yaml::Mapping;

use super::weights::Weights;
use super::{ConvertOptions, tree, whole};
use crate::{ModelConfig, ModelSource};

/// CompVis' classes by key and our target, and our fields that their constructors do not take.
const CLASSES: [(&str, &str, &str, &[&str]); 14] = [
    (
        "model",
        "latent_diffusion",
        "ldm.models.diffusion.ddpm.LatentDiffusion",
        &["concat_keys", "scale_concat", "zero_terminal_snr"],
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
    options: &ConvertOptions,
    note: &mut dyn FnMut(&str),
) -> Result<()> {
    let config_file = out.with_extension("yaml");
    for path in [out, &config_file] {
        let directory = path.is_dir();
        if path.exists() && (!options.force || directory) {
            let kind =
                if directory { std::io::ErrorKind::IsADirectory } else { std::io::ErrorKind::AlreadyExists };
            return Err(Error::io(path)(kind.into()));
        }
    }
    if out == config_file {
        return Err(Error::format(
            out,
            "expected a file name NAME.ckpt or NAME.safetensors, got one of a config",
        ));
    }
    let mut config = whole(source);
    let mut tensors = weights.native();
    if let ModelConfig::LatentDiffusion(model) = &mut config {
        // The EMA weights are the weights, so CompVis must not require both.
        model.use_ema = false;
        if model.parameterization == Parameterization::V {
            note("parameterization: v is not supported by CompVis' code, which has eps and x0");
        }
        if model.zero_terminal_snr {
            note(
                "zero_terminal_snr: dropped, since CompVis has no such key; this model needs a rescaled schedule",
            );
        }
        if model.scale_concat {
            note(
                "scale_concat: dropped, since CompVis has no such key; this model needs a scaled masked image",
            );
        }
        if let ConditionerConfig::Class(class) = &model.cond_stage_config
            && class.null_class.is_some_and(|null| null != 1000)
        {
            note(
                "null_class: dropped, since CompVis has no such key; classifier-free guidance needs it in the config",
            );
        }
        if model.cond_stage_config == ConditionerConfig::FirstStage {
            // CompVis' state dict holds the first stage twice.
            tensors.extend(weights.copied("first_stage_model.", "cond_stage_model."));
        }
    }
    tensors.extend(Streamed::each(&weights.buffers));
    let mut metadata = weights.metadata();
    metadata.entry("global_step".into()).or_insert_with(|| "0".into());
    let text = to_text(&Value::Mapping(compvis_config(&config)));
    let replaced = out.exists();
    if out.extension().is_some_and(|extension| extension == "safetensors") {
        save_streamed(out, &tensors, &metadata)?;
    } else {
        save_torch_streamed(out, &tensors, &metadata)?;
    }
    let written = files::write_bytes(&config_file, text.as_bytes());
    // Weights that replaced an older file stay: they are complete.
    if written.is_err() && !replaced {
        drop(std::fs::remove_file(out));
    }
    written
}

/// Checks that the files of a checkpoint, where they exist, are a checkpoint and the config of a model: other content of
/// the same names is not replaced.
pub(super) fn check_replaceable(out: &Path) -> Result<()> {
    let config_file = out.with_extension("yaml");
    let is_config = |text: String| {
        let tree: Option<Mapping> = serde_yaml::from_str(&text).ok();
        tree.is_some_and(|tree| tree.keys().eq(["model"]) && tree["model"].get("target").is_some())
    };
    for (path, expected, is_own) in [
        (out, "a checkpoint", Checkpoint::open(out).is_ok_and(|found| found.path() == out)),
        (&config_file, "a config of `model` alone", text::read(&config_file).is_ok_and(is_config)),
    ] {
        if path.exists() && !is_own {
            let expected = format!("{expected} in a file that is replaced");
            return Err(Error::expected(path.display(), expected, "other content; try another path"));
        }
    }
    Ok(())
}

/// The config as CompVis' `instantiate_from_config` takes it.
fn compvis_config(config: &ModelConfig) -> Mapping {
    let mut tree = tree(config);
    translate(&mut tree);
    if let ModelConfig::LatentDiffusion(model) = config
        && let Some(unet) = tree["model"]["params"]["unet_config"]["params"].as_mapping_mut()
    {
        // Required in CompVis' configs.
        unet.entry("image_size".into()).or_insert_with(|| model.image_size.into());
    }
    tree
}

fn translate(map: &mut Mapping) {
    for (key, value) in map.iter_mut() {
        let (key, Some(section)) = (key.as_str().unwrap_or_default().to_owned(), value.as_mapping_mut())
        else {
            continue;
        };
        let target = section.get("target").and_then(Value::as_str).unwrap_or_default().to_owned();
        let class = CLASSES.iter().find(|(at, own, ..)| *at == key && *own == target);
        if let Some((_, _, compvis_class, unsupported)) = class {
            section.insert("target".into(), (*compvis_class).into());
            if compvis_class.starts_with("torch.nn.") {
                section.remove("params");
            }
            if let Some(params) = section.get_mut("params").and_then(Value::as_mapping_mut) {
                let default = match target.as_str() {
                    // CompVis' class takes the sizes from the pretrained network.
                    "clip_text" => {
                        serde_yaml::to_value(ClipTextConfig::default()).expect("a valid YAML tree")
                    }
                    _ => Value::Null,
                };
                params.retain(|name, value| {
                    let own = name.as_str().is_some_and(|name| unsupported.contains(&name));
                    !own || default.get(name).is_some_and(|default| default != value)
                });
                if target == "kl" || target == "vq" {
                    // Required in CompVis' configs; a discriminator would need weights that are not exported.
                    let mut none = Mapping::new();
                    none.insert("target".into(), "torch.nn.Identity".into());
                    params.insert("lossconfig".into(), Value::Mapping(none));
                }
            }
        }
        translate(section);
    }
}
