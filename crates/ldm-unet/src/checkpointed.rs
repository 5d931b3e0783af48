//! Gradient checkpointing of one block.

use ldm_libtorch::{SharedModule, checkpoint};
use tch::Tensor;
use tch::nn::Path;

use crate::parameters::Parameters;

/// A block whose activations training may throw away, to run it again in backward.
///
/// Chen et al. 2016. CompVis `diffusionmodules/util.py:99`, which the reference hard-wires on for attention and
/// transformers; here `use_checkpoint` says it for all three kinds of block. Outputs and gradients are the same.
#[derive(Debug)]
pub(crate) struct Checkpointed<T> {
    block: SharedModule<T>,
    /// Every parameter the block reads; none when the block is never run again.
    params: Option<Vec<Tensor>>,
}

impl<T: 'static> Checkpointed<T> {
    /// Takes a block made under `vs` and the list of its parameters.
    pub(crate) fn new(block: T, vs: &Path, list: impl FnOnce(&mut Parameters), on: bool) -> Self {
        let params = on.then(|| {
            let mut names = Parameters::default();
            list(&mut names);
            names.find(vs)
        });
        Self { block: SharedModule::new(block), params }
    }

    /// The block itself.
    pub(crate) fn block(&self) -> &T {
        &self.block
    }

    /// `forward(block, inputs)`; in training, where it is on, with `inputs` as all that is kept.
    pub(crate) fn run(
        &self,
        train: bool,
        inputs: &[&Tensor],
        forward: impl Fn(&T, &[Tensor]) -> Tensor + 'static,
    ) -> Tensor {
        match &self.params {
            Some(params) if train => checkpoint(&self.block, params, inputs, forward),
            _ => {
                let inputs: Vec<Tensor> = inputs.iter().map(|input| input.shallow_clone()).collect();
                forward(&self.block, &inputs)
            }
        }
    }
}
