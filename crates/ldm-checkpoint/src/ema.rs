//! CompVis' EMA weights in a checkpoint.

use std::collections::BTreeSet;

use crate::Checkpoint;

const EMA: &str = "model_ema.";
const EMA_COUNTERS: [&str; 2] = ["decay", "num_updates"];

impl Checkpoint {
    /// Returns whether the file holds CompVis' EMA weights next to the weights.
    pub fn has_ema(&self) -> bool {
        self.names().any(|name| name.strip_prefix(EMA).is_some_and(|rest| !EMA_COUNTERS.contains(&rest)))
    }

    /// Replaces weights with their EMA, and drops every `model_ema.` name.
    ///
    /// CompVis stores the EMA of `model.diffusion_model.out.2.bias` as `model_ema.diffusion_modelout2bias`
    /// (`ldm/modules/ema.py:19`), which cannot be reversed. So the model's own names (`native`) and the names that
    /// the file has below `model.` are looked up in that form; a name without an EMA keeps its weight.
    #[must_use]
    pub fn with_ema_weights(mut self, native: &[String]) -> Self {
        let of_file = self.entries.keys().cloned();
        let names: BTreeSet<String> = of_file.chain(native.iter().cloned()).collect();
        for name in names {
            let Some(below) = name.strip_prefix("model.") else { continue };
            if let Some(ema) = self.entries.get(&format!("{EMA}{}", below.replace('.', ""))) {
                let ema = ema.clone();
                self.entries.insert(name, ema);
            }
        }
        self.without(&[EMA])
    }
}
