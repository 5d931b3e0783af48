//! Gradient checkpointing of one block.

use ldm_libtorch::{SharedModule, checkpoint};
use tch::Tensor;
use tch::nn::Path;

use crate::parameters::ParameterNames;

/// A block whose activations may be discarded in training and recomputed in backward.
///
/// Chen et al. 2016. CompVis `diffusionmodules/util.py:99`, which is always enabled there for attention and
/// transformers; here `use_checkpoint` controls all three kinds of block. Outputs and gradients are the same.
#[derive(Debug)]
pub(crate) struct Checkpointed<T> {
    block: SharedModule<T>,
    /// Every parameter of the block; `None` without checkpointing.
    params: Option<Vec<Tensor>>,
}

impl<T: Send + 'static> Checkpointed<T> {
    /// Wraps a block built at `vs`, given the list of its parameters.
    pub(crate) fn new(
        block: T,
        vs: &Path,
        list: impl FnOnce(&mut ParameterNames),
        use_checkpoint: bool,
    ) -> Self {
        let params = use_checkpoint.then(|| {
            let mut names = ParameterNames::default();
            list(&mut names);
            names.find(vs)
        });
        Self { block: SharedModule::new(block), params }
    }

    /// Calls `read` with the wrapped block.
    pub(crate) fn with<R>(&self, read: impl FnOnce(&T) -> R) -> R {
        self.block.with(read)
    }

    /// Runs `forward(block, inputs)`; with checkpointing, training keeps only `inputs`.
    pub(crate) fn run(
        &self,
        train: bool,
        inputs: &[&Tensor],
        forward: impl Fn(&T, &[Tensor]) -> Tensor + Send + Sync + 'static,
    ) -> Tensor {
        match &self.params {
            Some(params) if train => checkpoint(&self.block, params, inputs, forward),
            _ => {
                let inputs: Vec<Tensor> = inputs.iter().map(|input| input.shallow_clone()).collect();
                self.block.with(|block| forward(block, &inputs))
            }
        }
    }
}
