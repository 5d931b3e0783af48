//! Mapping to the state dicts of text encoders in transformers and diffusers.

use ldm_checkpoint::{KeyMap, StateDictMapping};
use ldm_core::Result;

use crate::ConditionerConfig;
use crate::diffusers::no_such_model;

/// Returns the mapping between the state dicts of this text encoder and of transformers' `CLIPTextModel` or diffusers'
/// `LDMBertModel`. Native names are relative to the conditioner. Shapes are the same.
///
/// CLIP's names begin with `text_model.`, which transformers 5 may omit; both are accepted, and `text_model.` is written,
/// which all releases accept.
///
/// # Errors
/// [`ldm_core::Error::Invalid`] if they have no such model.
pub fn diffusers_layout(config: &ConditionerConfig) -> Result<StateDictMapping> {
    let keys = match config {
        ConditionerConfig::ClipText(_) => clip(),
        ConditionerConfig::Bert(config) => bert(config.n_layer),
        other => return Err(no_such_model(other)),
    };
    Ok(StateDictMapping { keys, changes: Vec::new() })
}

fn clip() -> KeyMap {
    let parts = ["embeddings", "encoder", "final_layer_norm"];
    let bare = parts.map(|part| (part.to_owned(), format!("text_model.{part}")));
    KeyMap::new(pairs(&[("", "transformer")]), pairs(&[("text_model", "text_model")])).with_older(bare.into())
}

/// One layer of diffusers is two of CompVis: attention, then feed-forward. diffusers `convert_from_ckpt.py:750`
/// `convert_ldm_bert_checkpoint`.
fn bert(layers: i64) -> KeyMap {
    let mut modules = pairs(&[
        ("model.embed_tokens", "transformer.token_emb"),
        ("model.embed_positions", "transformer.pos_emb.emb"),
        ("model.layer_norm", "transformer.norm"),
        ("to_logits", "transformer.to_logits"),
    ]);
    for layer in 0..layers {
        for (theirs, index, ours) in [
            ("self_attn_layer_norm", 0, "0"),
            ("self_attn.q_proj", 0, "1.to_q"),
            ("self_attn.k_proj", 0, "1.to_k"),
            ("self_attn.v_proj", 0, "1.to_v"),
            ("self_attn.out_proj", 0, "1.to_out"),
            ("final_layer_norm", 1, "0"),
            ("fc1", 1, "1.net.0.0"),
            ("fc2", 1, "1.net.2"),
        ] {
            let block = 2 * layer + index;
            modules.push((
                format!("model.layers.{layer}.{theirs}"),
                format!("transformer.attn_layers.layers.{block}.{ours}"),
            ));
        }
    }
    KeyMap::new(modules, Vec::new())
}

fn pairs(names: &[(&str, &str)]) -> Vec<(String, String)> {
    names.iter().map(|(theirs, ours)| ((*theirs).to_owned(), (*ours).to_owned())).collect()
}
