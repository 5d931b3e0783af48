//! PEFT's metadata of LoRA files.

use std::collections::BTreeMap;

use serde_json::{Map, Value};

/// PEFT's settings, which newer diffusers writes into a file's metadata in place of alpha tensors.
#[derive(Debug, Default)]
pub(super) struct PeftMetadata(Map<String, Value>);

/// Their metadata key: a JSON object with keys below `unet.` and `text_encoder.`.
const KEY: &str = "lora_adapter_metadata";

impl PeftMetadata {
    /// # Errors
    /// The problem of the entry.
    pub(super) fn of(metadata: &BTreeMap<String, String>) -> Result<Self, String> {
        let Some(text) = metadata.get(KEY) else { return Ok(Self::default()) };
        serde_json::from_str(text).map(Self).map_err(|error| format!("metadata `{KEY}`: {error}"))
    }

    /// The alpha of a module of rank `rank`, such that `alpha/rank` is its scale; none where unset.
    pub(super) fn alpha(&self, module: &str, rank: i64) -> Option<f64> {
        let (root, below) = module.split_once('.')?;
        let get = |key: &str| self.0.get(&format!("{root}.{key}"));
        let patterns = get("alpha_pattern").and_then(Value::as_object);
        let own = patterns.into_iter().flatten().find(|(pattern, _)| matches(pattern, below));
        let alpha = own.map(|(_, value)| value).or_else(|| get("lora_alpha"))?.as_f64()?;
        // Rank-stabilized LoRA (Kalajdzievski 2023) divides by √r.
        let stable = get("use_rslora").and_then(Value::as_bool).unwrap_or(false);
        Some(if stable { alpha * (rank as f64).sqrt() } else { alpha })
    }
}

/// Matches a PEFT pattern: the end of a module's name, from a dot on.
fn matches(pattern: &str, module: &str) -> bool {
    let pattern = pattern.trim_start_matches('^');
    module.strip_suffix(pattern).is_some_and(|before| before.is_empty() || before.ends_with('.'))
}
