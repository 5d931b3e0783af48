//! Writing of LoRA files in kohya-ss' naming with diffusers' modules, which web UIs and diffusers read.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use ldm_checkpoint::save;
use ldm_conditioning::ConditionerConfig;
use ldm_core::{Error, Result};
use tch::Tensor;

use super::names::Names;
use super::read::Lora;
use super::update::{Factors, Update};
use crate::LatentDiffusionConfig;

/// The context width of Stable Diffusion 1.
const WIDTH: i64 = 768;

impl Lora {
    /// The tensors of the file: `lora_unet_….lora_down.weight`, `….lora_up.weight` and `….alpha`.
    ///
    /// Modules have diffusers' names; those that diffusers does not have (a class embedder, attention without a
    /// context) have ours, which only [`Lora::read`] supports.
    ///
    /// # Errors
    /// [`Error::Invalid`] when a weight is of neither the U-Net nor the conditioner, and for other updates than LoRAs.
    pub fn tensors(&self, config: &LatentDiffusionConfig) -> Result<Vec<(String, Tensor)>> {
        let names = Names::of(config);
        let mut tensors = Vec::with_capacity(3 * self.updates.len());
        for (weight, update) in &self.updates {
            let Update { factors: Factors::LowRank(adapter), magnitude: None } = update else {
                return Err(Error::expected(
                    "LoRA",
                    "low-rank updates to write",
                    format!("others (`{weight}`)"),
                ));
            };
            let module = names.written(weight).ok_or_else(|| {
                Error::expected("LoRA", "a weight of the U-Net or the conditioner", format!("`{weight}`"))
            })?;
            for (leaf, tensor) in [("lora_down.weight", &adapter.down), ("lora_up.weight", &adapter.up)] {
                tensors.push((format!("{module}.{leaf}"), tensor.detach()));
            }
            tensors.push((format!("{module}.alpha"), Tensor::from(adapter.alpha as f32)));
        }
        Ok(tensors)
    }

    /// The metadata of the file, with kohya's keys: rank and alpha where they are uniform, and the base model where it
    /// is Stable Diffusion 1.
    pub fn metadata(&self, config: &LatentDiffusionConfig) -> BTreeMap<String, String> {
        let mut metadata = BTreeMap::from([
            ("format".to_owned(), "pt".to_owned()),
            ("ss_network_module".to_owned(), "networks.lora".to_owned()),
        ]);
        let mut record = |key: &str, all: BTreeSet<String>| {
            if let [one] = all.iter().collect::<Vec<_>>().as_slice() {
                metadata.insert(key.to_owned(), (*one).clone());
            }
        };
        let adapters = || {
            self.updates.values().filter_map(|update| match &update.factors {
                Factors::LowRank(adapter) => Some(adapter),
                _ => None,
            })
        };
        record("ss_network_dim", adapters().map(|adapter| adapter.rank().to_string()).collect());
        record("ss_network_alpha", adapters().map(|adapter| adapter.alpha.to_string()).collect());
        if let ConditionerConfig::ClipText(clip) = &config.cond_stage_config
            && clip.hidden_size == WIDTH
        {
            metadata.insert("ss_base_model_version".into(), "sd_v1".into());
            metadata.insert("ss_v2".into(), "False".into());
        }
        metadata
    }

    /// Writes the file, whole or not at all.
    ///
    /// # Errors
    /// As [`Lora::tensors`], and [`Error::Io`].
    pub fn save(&self, path: &Path, config: &LatentDiffusionConfig) -> Result<()> {
        save(path, &self.tensors(config)?, &self.metadata(config))
    }
}
