//! Gradient checkpointing.

use std::ops::Deref;
use std::sync::Arc;

use tch::Tensor;

use crate::ffi::{self, SendArc};

/// A module that [`checkpoint`] may run again during `backward`.
///
/// It owns the module and dereferences to it, like a `Box`. The only other owner is the autograd graph of a
/// checkpointed forward, which keeps the module alive until the graph is dropped; so a model of `SharedModule`s may move
/// between threads like one of plain modules.
#[derive(Debug)]
pub struct SharedModule<T>(SendArc<T>);

impl<T> SharedModule<T> {
    /// Wraps `module`.
    #[allow(clippy::arc_with_non_send_sync)] // the count must be atomic: CUDA's backward runs on another thread
    pub fn new(module: T) -> Self {
        Self(SendArc(Arc::new(module)))
    }
}

impl<T> Deref for SharedModule<T> {
    type Target = T;

    fn deref(&self) -> &T {
        &self.0.0
    }
}

/// Runs `forward(module, inputs)` and keeps only `inputs` as activations; `backward` runs it a second time.
///
/// The second run restores the random state and the autocast of the first, so dropout drops the same values. Gradients
/// flow to `inputs` and to `params`, which must name every parameter that `forward` reads. If no gradient is recorded,
/// this is a plain call. Chen et al. 2016; CompVis `diffusionmodules/util.py:99`.
///
/// # Panics
/// When `inputs` is empty, or when `forward` panics.
pub fn checkpoint<T: 'static>(
    module: &SharedModule<T>,
    params: &[Tensor],
    inputs: &[&Tensor],
    forward: impl Fn(&T, &[Tensor]) -> Tensor + 'static,
) -> Tensor {
    let module = Arc::clone(&module.0.0);
    ffi::checkpoint(Box::new(move |inputs| forward(&module, inputs)), inputs, params)
        .expect("a checkpointed block that runs")
}
