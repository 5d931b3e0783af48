//! An objective of a few weights, to hold adapters against.

use ldm_checkpoint::Checkpoint;
use ldm_core::{NoiseSource, Result};
use ldm_data::Batch;
use ldm_pipelines::ModelSource;
use ldm_train::{InitFrom, Loss, Objective, Phase, SampleConfig, StepInfo};
use tch::Tensor;

/// An objective made of weights and a function of them.
pub(crate) struct Function {
    pub(crate) weights: Vec<(String, Tensor)>,
    pub(crate) loss: Box<dyn Fn() -> Tensor>,
}

impl Objective for Function {
    fn start_from(&mut self, _source: ModelSource, _from: &InitFrom) -> Result<()> {
        unreachable!("a function has no weights")
    }

    fn check_size(&self, _size: [i64; 2]) -> Result<()> {
        Ok(())
    }
    fn prepare(&mut self, _first: &Batch, _noise: &mut dyn NoiseSource) -> Result<()> {
        panic!("a base that is trained measures nothing")
    }
    fn phases(&self) -> Vec<Phase> {
        panic!("nothing of the base is trained")
    }
    fn loss(&self, _moment: StepInfo, _batch: &Batch, _noise: &mut dyn NoiseSource) -> Result<Loss> {
        Ok(Loss { total: (self.loss)(), parts: Vec::new() })
    }
    fn ema_parameters(&self) -> Vec<(String, Tensor)> {
        panic!("nothing of the base is ema_parameters")
    }
    fn weights(&self) -> Vec<(String, Tensor)> {
        self.weights.iter().map(|(name, tensor)| (name.clone(), tensor.shallow_clone())).collect()
    }
    fn load(&mut self, _checkpoint: Checkpoint) -> Result<()> {
        panic!("a checkpoint of adapters holds no base")
    }
    fn validate(
        &self,
        _batches: &mut dyn Iterator<Item = Result<Batch>>,
    ) -> Result<Vec<(&'static str, f64)>> {
        Ok(vec![("val/loss", (self.loss)().double_value(&[]))])
    }
    fn preview(&self, _batch: &Batch, _config: &SampleConfig) -> Result<Tensor> {
        Ok((self.loss)())
    }
}
