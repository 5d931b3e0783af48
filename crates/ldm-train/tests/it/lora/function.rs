//! An objective made of a few weights and a closure.

use ldm_checkpoint::Checkpoint;
use ldm_core::{NoiseSource, Result};
use ldm_data::Batch;
use ldm_train::{Loss, Objective, Phase, StepInfo, Validate};
use tch::Tensor;

/// An objective made of weights and a function of them.
pub(crate) struct Function {
    pub(crate) weights: Vec<(String, Tensor)>,
    pub(crate) loss: Box<dyn Fn() -> Tensor>,
}

impl Objective for Function {
    fn prepare(&mut self, _first: &Batch, _noise: &mut dyn NoiseSource) -> Result<()> {
        panic!("the base is not prepared")
    }
    fn phases(&self) -> Vec<Phase> {
        panic!("the base is not trained")
    }
    fn loss(&self, _info: StepInfo, _batch: &Batch, _noise: &mut dyn NoiseSource) -> Result<Loss> {
        Ok(Loss { total: (self.loss)(), parts: Vec::new() })
    }
    fn ema_parameters(&self) -> Vec<(String, Tensor)> {
        panic!("the base has no EMA")
    }
    fn weights(&self) -> Vec<(String, Tensor)> {
        self.weights.iter().map(|(name, tensor)| (name.clone(), tensor.shallow_clone())).collect()
    }
    fn load(&mut self, _checkpoint: Checkpoint) -> Result<()> {
        panic!("checkpoints of adapters do not include the base")
    }

    fn as_validate(&self) -> Option<&dyn Validate> {
        Some(self)
    }
}

impl Validate for Function {
    fn validate(
        &self,
        _batches: &mut dyn Iterator<Item = Result<Batch>>,
    ) -> Result<Vec<(&'static str, f64)>> {
        Ok(vec![("val/loss", (self.loss)().double_value(&[]))])
    }
}
