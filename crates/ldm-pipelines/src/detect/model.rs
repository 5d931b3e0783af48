//! What a checkpoint is, from its names, its shapes and its schedule's buffers alone.

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

/// The width of CLIP's heads, in every one of its sizes.
const CLIP_HEAD: i64 = 64;
/// The published scale of KL latents of 4 channels and f = 8 that no buffer gives: Stable Diffusion's and text2img's.
const TEXT_SCALE: f64 = 0.18215;
/// Words of BERT's tokenizer.
const WORDS: i64 = 30522;

/// The model in a checkpoint without a config: a first stage alone, or a whole.
///
/// # Errors
/// [`Error::Format`] when it is something else, or a field cannot be told; it names the field.
pub(crate) fn infer_config(checkpoint: &Checkpoint) -> Result<ModelConfig> {
    let shapes = checkpoint.shapes();
    let refuse = |why: String| Error::format(checkpoint.path(), why);
    if let Some(what) = unsupported_kind(&shapes) {
        return Err(refuse(what.to_owned()));
    }
    let untold = |error: Error| match error {
        Error::Invalid(why) => {
            refuse(format!("{why}: give its config by --config, or put it beside the file"))
        }
        other => other,
    };
    let [first, unet] = [FIRST_STAGE, UNET].map(|root| below(&shapes, root));
    match (first.is_empty(), unet.is_empty()) {
        (false, false) => {
            let whole = whole(checkpoint, &first, &unet, &below(&shapes, CONDITIONER)).map_err(untold)?;
            Ok(ModelConfig::LatentDiffusion(Box::new(whole)))
        }
        (true, false) => Err(untold(Error::invalid("first_stage_config: a U-Net without its first stage"))),
        (no_first_stage, true) => {
            let alone = if no_first_stage { &shapes } else { &first };
            if !alone.contains_key("decoder.conv_out.weight") {
                return Err(untold(Error::invalid(
                    "model: its names are of no first stage and no latent diffusion model",
                )));
            }
            let config = ldm_autoencoder::infer_config(&weights(alone)).map_err(untold)?;
            Ok(ModelConfig::of_first_stage(config).expect("a first stage of weights"))
        }
    }
}

/// The names below `root`, cut off there.
fn below(shapes: &Shapes, root: &str) -> Shapes {
    let cut =
        |(name, shape): (&String, &Vec<i64>)| Some((name.strip_prefix(root)?.to_owned(), shape.clone()));
    shapes.iter().filter_map(cut).collect()
}

/// A first stage without what training left.
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
    let side = unet.image_size.map(|[height, _]| height).ok_or_else(|| {
        Error::invalid("image_size: published models with this U-Net have latents of several sizes")
    })?;
    let measured = checkpoint.contains("scale_factor");
    let text = matches!(conditioner, ConditionerConfig::ClipText(_))
        || matches!(&conditioner, ConditionerConfig::Bert(bert) if bert.use_tokenizer);
    let scale = match &first_stage {
        _ if measured => 1., // the file's own is taken
        FirstStageConfig::Kl(kl) if text && kl.embed_dim == 4 && kl.ddconfig.factor() == 8 => TEXT_SCALE,
        FirstStageConfig::Kl(_) => {
            return Err(Error::invalid("scale_factor: a KL first stage needs one, and the file holds none"));
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

/// The conditioner, by its names, and where its words go, by the U-Net's channels.
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
        let conditioner = told_by_names(found)?.ok_or_else(|| {
            Error::invalid(
                "cond_stage_config: the U-Net attends to tokens, and no name tells what makes them",
            )
        })?;
        let key = match joined {
            0 => "crossattn",
            _ if joined == 1 + unet.out_channels => "hybrid",
            _ => {
                return Err(Error::invalid(format!(
                    "conditioning_key: {joined} channels are joined to the latent"
                )));
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
            n_stages: factor.ilog2().into(), // halved until it is as small as the latent
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
        // A small image.
        3 => Ok((ConditionerConfig::Identity, Some("concat"))),
        _ => Err(Error::invalid(format!("cond_stage_config: {joined} channels are joined to the latent"))),
    }
}

fn told_by_names(found: &Shapes) -> Result<Option<ConditionerConfig>> {
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
        let [max_seq_len, _] = sizes("transformer.pos_emb.emb.weight")
            .ok_or_else(|| Error::invalid("cond_stage_config: a transformer without positions"))?;
        return Ok(Some(ConditionerConfig::Bert(BertConfig {
            n_embed,
            n_layer: (blocks / 2) as i64, // attention and feed-forward in turn
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
        let missing = || Error::invalid(format!("cond_stage_config: CLIP's text model without {name}"));
        sizes(&format!("{clip}{name}")).ok_or_else(missing)
    };
    let [positions, _] = part("embeddings.position_embedding.weight")?;
    let [intermediate_size, _] = part("encoder.layers.0.mlp.fc1.weight")?;
    if hidden_size % CLIP_HEAD != 0 {
        return Err(Error::invalid(format!(
            "cond_stage_config: names do not tell the heads of a width of {hidden_size}"
        )));
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
