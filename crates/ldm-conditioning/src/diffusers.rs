//! Conversion of the configs of text encoders in diffusers' folders: `text_encoder/config.json` (`bert/config.json` of its
//! latent diffusion).

use ldm_core::diffusers::{Fields, wrong};
use ldm_core::{Error, Result};
use serde_json::{Value, json};

use crate::bert::token_encoder::{FEED_FORWARD, HEAD_WIDTH, HEADS};
use crate::{Activation, BertConfig, ClipTextConfig, ConditionerConfig};

/// `model_type` and class of a CLIP text model in transformers, and of CompVis' BERT embedder in diffusers.
const CLIP: [&str; 2] = ["clip_text_model", "CLIPTextModel"];
const BERT: [&str; 2] = ["ldmbert", "LDMBertModel"];

/// Converts the `config.json` of transformers' `CLIPTextModel` or diffusers' `LDMBertModel` to a config. Other fields are
/// ignored, as are dropout probabilities: they act only in training, where those of CompVis apply.
///
/// # Errors
/// [`Error::Invalid`] with the field, if it is of another model or has an unsupported value.
pub fn from_diffusers(json: &Value) -> Result<ConditionerConfig> {
    let fields = Fields::new(json)?;
    match fields.get("model_type").and_then(Value::as_str) {
        Some(word) if word == CLIP[0] => clip_text(&fields).map(ConditionerConfig::ClipText),
        Some(word) if word == BERT[0] => bert(&fields).map(ConditionerConfig::Bert),
        _ => Err(wrong("model_type", &format!("{} or {}", CLIP[0], BERT[0]), fields.get("model_type"))),
    }
}

/// Reads a text config, with the defaults of `CLIPTextConfig`, a smaller model than ours.
pub(crate) fn clip_text(fields: &Fields) -> Result<ClipTextConfig> {
    let hidden_act = activation(fields)?;
    let positions = fields.integer("max_position_embeddings", 77)?;
    let config = ClipTextConfig {
        max_length: positions,
        hidden_size: fields.integer("hidden_size", 512)?,
        intermediate_size: fields.integer("intermediate_size", 2048)?,
        num_hidden_layers: fields.integer("num_hidden_layers", 12)?,
        num_attention_heads: fields.integer("num_attention_heads", 8)?,
        vocab_size: fields.integer("vocab_size", 49408)?,
        max_position_embeddings: positions,
        hidden_act,
        layer_norm_eps: fields.maybe_number("layer_norm_eps")?.unwrap_or(1e-5),
        ..ClipTextConfig::default()
    };
    config.check()?;
    Ok(config)
}

/// Reads the activation; the default is OpenAI's.
pub(crate) fn activation(fields: &Fields) -> Result<Activation> {
    Ok(match fields.word("hidden_act", &["quick_gelu", "gelu"])? {
        "gelu" => Activation::Gelu,
        _ => Activation::QuickGelu,
    })
}

fn bert(fields: &Fields) -> Result<BertConfig> {
    fields.check(&json!({
        "encoder_attention_heads": [HEADS],
        "head_dim": [HEAD_WIDTH],
        "activation_function": ["gelu"],
        "scale_embedding": [false],
    }))?;
    let n_embed = fields.integer("d_model", 1280)?;
    let inside = fields.integer("encoder_ffn_dim", 5120)?;
    if inside != FEED_FORWARD * n_embed {
        let expected = format!("{}, {FEED_FORWARD} times d_model", FEED_FORWARD * n_embed);
        return Err(wrong("encoder_ffn_dim", &expected, fields.get("encoder_ffn_dim")));
    }
    let config = BertConfig {
        n_embed,
        n_layer: fields.integer("encoder_layers", 32)?,
        vocab_size: fields.integer("vocab_size", 30522)?,
        max_seq_len: fields.integer("max_position_embeddings", 77)?,
        device: None,
        use_tokenizer: true,
        embedding_dropout: 0.,
    };
    config.check()?;
    Ok(config)
}

/// Converts a config to the `config.json` of transformers or diffusers.
///
/// # Errors
/// [`Error::Invalid`] if they have no such model.
pub fn to_diffusers(config: &ConditionerConfig) -> Result<Value> {
    match config {
        ConditionerConfig::ClipText(clip) => {
            clip.check()?;
            Ok(json!({
                "architectures": [CLIP[1]],
                "attention_dropout": 0.0,
                "bos_token_id": clip.vocab_size - 2,
                "eos_token_id": clip.vocab_size - 1,
                "hidden_act": clip.hidden_act,
                "hidden_size": clip.hidden_size,
                "intermediate_size": clip.intermediate_size,
                "layer_norm_eps": clip.layer_norm_eps,
                "max_position_embeddings": clip.max_position_embeddings,
                "model_type": CLIP[0],
                "num_attention_heads": clip.num_attention_heads,
                "num_hidden_layers": clip.num_hidden_layers,
                "vocab_size": clip.vocab_size,
            }))
        }
        ConditionerConfig::Bert(bert) => {
            bert.check()?;
            if !bert.use_tokenizer {
                return Err(Error::invalid(
                    "use_tokenizer: expected true (the only value in diffusers), got false",
                ));
            }
            Ok(json!({
                "architectures": [BERT[1]],
                "activation_function": "gelu",
                "attention_dropout": 0.0,
                "d_model": bert.n_embed,
                "dropout": 0.0,
                "encoder_attention_heads": HEADS,
                "encoder_ffn_dim": FEED_FORWARD * bert.n_embed,
                "encoder_layers": bert.n_layer,
                "head_dim": HEAD_WIDTH,
                "max_position_embeddings": bert.max_seq_len,
                "model_type": BERT[0],
                "pad_token_id": 0,
                "scale_embedding": false,
                "vocab_size": bert.vocab_size,
            }))
        }
        other => Err(no_such_model(other)),
    }
}

/// The error about a model that only CompVis has.
pub(crate) fn no_such_model(config: &ConditionerConfig) -> Error {
    let value = serde_json::to_value(config).unwrap_or_default();
    let word = value["target"].as_str().or_else(|| value.as_str()).unwrap_or("this kind");
    Error::invalid(format!("target: expected clip_text or bert, which diffusers has, got {word}"))
}
