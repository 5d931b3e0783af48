//! Merging of LoRAs into weights.

use std::collections::BTreeMap;

use ldm_checkpoint::Shapes;
use ldm_core::Result;
use tch::{Kind, Tensor};

use super::lora_path::LoraFile;
use super::read::Lora;
use super::update::Update;
use crate::{LatentDiffusion, LatentDiffusionConfig};

/// The updates of several LoRAs, each with its strength. Updates of the same weight, each computed for the weight
/// without the others, add up.
#[derive(Debug, Default)]
pub struct Merge(BTreeMap<String, Vec<(Update, f64)>>);

impl Merge {
    /// Reads all files, and checks them against the model of `config`, whose weights have `shapes`.
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

    /// Adds the updates of one LoRA.
    pub fn add(&mut self, lora: Lora, strength: f64) {
        for (weight, update) in lora.updates {
            self.0.entry(weight).or_default().push((update, strength));
        }
    }

    /// Returns the weight `name` with its updates, in f32; unchanged where there are none.
    ///
    /// # Panics
    /// When the weight has another shape than was checked.
    pub fn apply(&self, name: &str, weight: Tensor) -> Tensor {
        let Some(changes) = self.0.get(name) else { return weight };
        let weight = weight.to_kind(Kind::Float);
        changes
            .iter()
            .fold(weight.shallow_clone(), |sum, (update, strength)| sum + update.change(&weight, *strength))
    }
}

impl LatentDiffusion {
    /// Merges LoRAs into the weights: `W + Σ strength · alpha/r · B·A`, computed in f32 and rounded to the dtype of the
    /// weights. All files are checked against the model before any weight changes.
    ///
    /// Memory-mapped weights (see [`ldm_checkpoint::Checkpoint::load_mmap`]) are copied; the file does not change.
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
