//! Weights with what LoRAs change in them.

use std::collections::BTreeMap;

use ldm_checkpoint::Shapes;
use ldm_core::Result;
use tch::{Kind, Tensor};

use super::adapter::Adapter;
use super::lora_path::LoraFile;
use super::read::Lora;
use crate::{LatentDiffusion, LatentDiffusionConfig};

/// The changes of several LoRAs, each with its strength; what changes one weight adds up.
#[derive(Debug, Default)]
pub struct Merge(BTreeMap<String, Vec<(Adapter, f64)>>);

impl Merge {
    /// Reads all files, and holds them against the model of `config`, whose weights have `shapes`.
    ///
    /// # Errors
    /// As [`Lora::read`].
    pub fn read(files: &[LoraFile], config: &LatentDiffusionConfig, shapes: &Shapes) -> Result<Self> {
        let mut merge = Self::default();
        for file in files {
            merge.add(Lora::read(&file.find()?, config, shapes)?, file.strength);
        }
        Ok(merge)
    }

    /// Adds one LoRA's changes.
    pub fn add(&mut self, lora: Lora, strength: f64) {
        for (weight, adapter) in lora.adapters {
            self.0.entry(weight).or_default().push((adapter, strength));
        }
    }

    /// The weight `name` with all changes of it, in f32; as it is where there are none.
    ///
    /// # Panics
    /// When it is not of the shape the changes were held against.
    pub fn apply(&self, name: &str, weight: Tensor) -> Tensor {
        let Some(changes) = self.0.get(name) else { return weight };
        let (shape, device) = (weight.size(), weight.device());
        changes.iter().fold(weight.to_kind(Kind::Float), |sum, (adapter, strength)| {
            // As in [`Adapter::change`], but on the device of the weight.
            let moved = Adapter {
                down: adapter.down.to_device(device),
                up: adapter.up.to_device(device),
                alpha: adapter.alpha,
            };
            sum + moved.change(&shape, *strength)
        })
    }
}

impl LatentDiffusion {
    /// Adds LoRAs to the weights, for good: `W + Σ strength · alpha/r · B·A`, computed in f32 and kept in the dtype of
    /// the weights. All files are held against the model before anything changes.
    ///
    /// Weights that lie in their file (see [`ldm_checkpoint::Checkpoint::load_mmap`]) get memory of their own; the
    /// file stays as it is.
    ///
    /// # Errors
    /// As [`Lora::read`].
    pub fn merge(&self, files: &[LoraFile]) -> Result<()> {
        let variables = self.vs().variables();
        let shapes = variables.iter().map(|(name, tensor)| (name.clone(), tensor.size())).collect();
        let merge = Merge::read(files, &self.config, &shapes)?;
        tch::no_grad(|| {
            for (name, mut variable) in variables {
                if merge.0.contains_key(&name) {
                    let merged = merge.apply(&name, variable.detach()).to_kind(variable.kind());
                    variable.set_data(&merged);
                }
            }
        });
        Ok(())
    }
}
