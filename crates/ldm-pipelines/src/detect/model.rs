//! Configs inferred from the names, shapes and schedule buffers of a checkpoint.

use ldm_autoencoder::FirstStageConfig;
use ldm_checkpoint::{Checkpoint, Shapes, unsupported_kind};
use ldm_conditioning::{BertConfig, ClassConfig, ClipTextConfig, ConditionerConfig, SpatialConfig};
use ldm_core::{Error, Result};
use ldm_unet::UNetConfig;
use serde_json::json;

use crate::detect::schedule::schedule;
use crate::{LatentDiffusionConfig, ModelConfig};

const UNET: &str = "model.diffusion_model.";
const FIRST_STAGE: &str = "first_stage_model.";
const CONDITIONER: &str = "cond_stage_model.";

/// The width of CLIP's heads, the same in all its sizes.
const CLIP_HEAD: i64 = 64;
/// The scale factor of Stable Diffusion and text2img (KL, 4 channels, f = 8), which no buffer holds.
const TEXT_SCALE: f64 = 0.18215;
/// The vocabulary size of BERT's tokenizer.
const WORDS: i64 = 30522;

/// Infers the config of a checkpoint: a first stage alone, or a diffusion model.
///
/// # Errors
/// [`Error::Format`] when it is something else, or a field cannot be inferred; it names the field.
pub(crate) fn infer_config(checkpoint: &Checkpoint) -> Result<ModelConfig> {
    let shapes = checkpoint.shapes();
    let refuse = |why: String| Error::format(checkpoint.path(), why);
    if let Some(what) = unsupported_kind(&shapes) {
        return Err(refuse(what.to_owned()));
    }
    let unknown = |error: Error| match error {
        Error::Invalid(why) => refuse(format!("{why}; try --config, or put the config next to the file")),
        other => other,
    };
    let [first, unet] = [FIRST_STAGE, UNET].map(|root| below(&shapes, root));
    match (first.is_empty(), unet.is_empty()) {
        (false, false) => {
            let whole = whole(checkpoint, &first, &unet, &below(&shapes, CONDITIONER)).map_err(unknown)?;
            Ok(ModelConfig::LatentDiffusion(Box::new(whole)))
        }
        (true, false) => {
            Err(unknown(Error::expected("first_stage_config", "a first stage", "a U-Net alone")))
        }
        (no_first_stage, true) => {
            let alone = if no_first_stage { &shapes } else { &first };
            if !alone.contains_key("decoder.conv_out.weight") {
                return Err(unknown(Error::expected(
                    "model",
                    "a first stage or a latent diffusion model",
                    "other names",
                )));
            }
            let config = ldm_autoencoder::infer_config(&weights(alone)).map_err(unknown)?;
            Ok(ModelConfig::of_first_stage(config).expect("a first stage of weights"))
        }
    }
}

/// The shapes below `root`, with names relative to it.
fn below(shapes: &Shapes, root: &str) -> Shapes {
    let cut =
        |(name, shape): (&String, &Vec<i64>)| Some((name.strip_prefix(root)?.to_owned(), shape.clone()));
    shapes.iter().filter_map(cut).collect()
}

/// A first stage without leftovers of training.
fn weights(shapes: &Shapes) -> Shapes {
    let left_over = |name: &str| name.starts_with("loss.") || name.starts_with("model_ema.");
    shapes
        .iter()
        .filter(|(name, _)| !left_over(name))
        .map(|(name, shape)| (name.clone(), shape.clone()))
        .collect()
}

fn whole(
    checkpoint: &Checkpoint,
    first: &Shapes,
    unet: &Shapes,
    conditioner: &Shapes,
) -> Result<LatentDiffusionConfig> {
    let first_stage = ldm_autoencoder::infer_config(&weights(first))
        .map_err(|error| field("first_stage_config", &error))?;
    let unet = ldm_unet::infer_config(unet).map_err(|error| field("unet_config", &error))?;
    let (conditioner, key) = condition(&first_stage, &unet, conditioner)?;
    let side = unet
        .image_size
        .map(|[height, _]| height)
        .ok_or_else(|| Error::expected("image_size", "one published size for this U-Net", "several"))?;
    let measured = checkpoint.contains("scale_factor");
    let text = matches!(conditioner, ConditionerConfig::ClipText(_))
        || matches!(&conditioner, ConditionerConfig::Bert(bert) if bert.use_tokenizer);
    let scale = match &first_stage {
        _ if measured => 1., // read from the file
        FirstStageConfig::Kl(kl) if text && kl.embed_dim == 4 && kl.ddconfig.factor() == 8 => TEXT_SCALE,
        FirstStageConfig::Kl(_) => {
            return Err(Error::expected("scale_factor", "one in the file for a KL first stage", "none"));
        }
        _ => 1.,
    };
    let schedule = schedule(checkpoint, text)?;
    LatentDiffusionConfig::of(json!({
        "unet_config": { "target": "unet", "params": unet },
        "first_stage_config": first_stage,
        "cond_stage_config": conditioner,
        "conditioning_key": key,
        "image_size": side,
        "channels": unet.out_channels,
        "scale_factor": scale,
        "scale_by_std": measured,
        "timesteps": schedule.timesteps,
        "beta_schedule": schedule.beta_schedule,
        "linear_start": schedule.linear_start,
        "linear_end": schedule.linear_end,
        "given_betas": schedule.given_betas,
    }))
}

fn field(key: &str, error: &Error) -> Error {
    Error::invalid(format!("{key}: {error}"))
}

/// The conditioner, from its names, and the conditioning key, from the U-Net's channels.
fn condition(
    first_stage: &FirstStageConfig,
    unet: &UNetConfig,
    found: &Shapes,
) -> Result<(ConditionerConfig, Option<&'static str>)> {
    let joined = unet.in_channels - unet.out_channels;
    if unet.num_classes.is_some() {
        return Ok((ConditionerConfig::Identity, Some("adm")));
    }
    if unet.context_dim.is_some() {
        let conditioner = conditioner_by_names(found)?.ok_or_else(|| {
            Error::expected("cond_stage_config", "a conditioner for the U-Net's cross-attention", "none")
        })?;
        let key = match joined {
            0 => "crossattn",
            _ if joined == 1 + unet.out_channels => "hybrid",
            _ => {
                let expected = format!("0 or {} concatenated channels", 1 + unet.out_channels);
                return Err(Error::expected("conditioning_key", expected, joined));
            }
        };
        return Ok((conditioner, Some(key)));
    }
    if let Some([channels, classes, ..]) = found.get("channel_mapper.weight").map(Vec::as_slice) {
        let factor = match first_stage {
            FirstStageConfig::Kl(kl) => kl.ddconfig.factor(),
            FirstStageConfig::Vq(vq) => vq.ddconfig.factor(),
            FirstStageConfig::Identity(_) => 1,
        };
        let spatial = SpatialConfig {
            n_stages: factor.ilog2().into(), // halvings down to the latent's size
            in_channels: *classes,
            out_channels: Some(*channels),
            bias: found.contains_key("channel_mapper.bias"),
            ..SpatialConfig::default()
        };
        return Ok((ConditionerConfig::Spatial(spatial), Some("concat")));
    }
    match joined {
        0 => Ok((ConditionerConfig::Unconditional, None)),
        _ if joined == 1 + unet.out_channels => Ok((ConditionerConfig::FirstStage, Some("concat"))),
        // A low-resolution image.
        3 => Ok((ConditionerConfig::Identity, Some("concat"))),
        _ => {
            let expected = format!("0, 3 or {} concatenated channels", 1 + unet.out_channels);
            Err(Error::expected("cond_stage_config", expected, joined))
        }
    }
}

fn conditioner_by_names(found: &Shapes) -> Result<Option<ConditionerConfig>> {
    let sizes = |name: &str| match found.get(name).map(Vec::as_slice) {
        Some([first, second]) => Some([*first, *second]),
        _ => None,
    };
    let count = |name: &dyn Fn(usize) -> String| {
        (0..found.len()).take_while(|at| found.contains_key(&name(*at))).count()
    };
    if let Some([n_classes, embed_dim]) = sizes("embedding.weight") {
        let config = ClassConfig { embed_dim, n_classes, key: "class".into(), null_class: None };
        return Ok(Some(ConditionerConfig::Class(config)));
    }
    if let Some([vocab_size, n_embed]) = sizes("transformer.token_emb.weight") {
        let blocks = count(&|at| format!("transformer.attn_layers.layers.{at}.0.weight"));
        let [max_seq_len, _] = sizes("transformer.pos_emb.emb.weight").ok_or_else(|| {
            Error::expected("cond_stage_config", "a transformer with position embeddings", "none")
        })?;
        return Ok(Some(ConditionerConfig::Bert(BertConfig {
            n_embed,
            n_layer: (blocks / 2) as i64, // attention and feed-forward alternate
            vocab_size,
            max_seq_len,
            device: None,
            use_tokenizer: vocab_size == WORDS,
            embedding_dropout: 0.,
        })));
    }
    let clip = "transformer.text_model.";
    let Some([vocab_size, hidden_size]) = sizes(&format!("{clip}embeddings.token_embedding.weight")) else {
        return Ok(None);
    };
    let part = |name: &str| {
        let missing = || Error::expected("cond_stage_config", format!("{name} of CLIP's text model"), "none");
        sizes(&format!("{clip}{name}")).ok_or_else(missing)
    };
    let [positions, _] = part("embeddings.position_embedding.weight")?;
    let [intermediate_size, _] = part("encoder.layers.0.mlp.fc1.weight")?;
    if hidden_size % CLIP_HEAD != 0 {
        let expected = format!("a width divisible by {CLIP_HEAD}, that of CLIP's heads");
        return Err(Error::expected("cond_stage_config", expected, hidden_size));
    }
    Ok(Some(ConditionerConfig::ClipText(ClipTextConfig {
        max_length: positions,
        hidden_size,
        intermediate_size,
        num_hidden_layers: count(&|at| format!("{clip}encoder.layers.{at}.mlp.fc1.weight")) as i64,
        num_attention_heads: hidden_size / CLIP_HEAD,
        vocab_size,
        max_position_embeddings: positions,
        ..ClipTextConfig::default()
    })))
}
