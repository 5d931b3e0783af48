//! Gradient checkpointing: memory for time.

use std::ops::Deref;
use std::sync::Arc;

use tch::Tensor;

use crate::ffi::{self, SendArc};

/// A part of a model that [`checkpoint`] may run again during `backward`.
///
/// It owns its part and gives it out by reference, as a `Box` does. The only other owner ever is the autograd
/// graph of a checkpointed forward, which keeps the part alive until the graph is dropped; so a model of `Shared`
/// parts may move between threads as one of plain parts may.
#[derive(Debug)]
pub struct Shared<T>(SendArc<T>);

impl<T> Shared<T> {
    /// Takes `part`.
    #[allow(clippy::arc_with_non_send_sync)] // the count must be atomic: CUDA's backward runs on another thread
    pub fn new(part: T) -> Self {
        Self(SendArc(Arc::new(part)))
    }
}

impl<T> Deref for Shared<T> {
    type Target = T;

    fn deref(&self) -> &T {
        &self.0.0
    }
}

/// Runs `forward(part, inputs)` and keeps no activation but `inputs`; `backward` runs it a second time.
///
/// The second run finds the random state and the autocast of the first, so dropout drops the same. Gradients
/// flow to `inputs` and to `params`, which must name every parameter that `forward` reads. Where no gradient
/// is recorded, this is a plain call. Chen et al. 2016; CompVis `diffusionmodules/util.py:99`.
///
/// # Panics
/// When `inputs` is empty, or when `forward` panics.
pub fn checkpoint<T: 'static>(
    part: &Shared<T>,
    params: &[Tensor],
    inputs: &[&Tensor],
    forward: impl Fn(&T, &[Tensor]) -> Tensor + 'static,
) -> Tensor {
    let part = Arc::clone(&part.0.0);
    ffi::checkpoint(Box::new(move |inputs| forward(&part, inputs)), inputs, params)
        .expect("a checkpointed block that runs")
}
