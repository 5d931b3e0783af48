//! Gradient checkpointing.

use std::sync::{Arc, Mutex, PoisonError};

use tch::Tensor;

use crate::ffi;

/// A module that [`checkpoint`] may run again during `backward`.
///
/// Its only other owner is the autograd graph of a checkpointed forward, which keeps the module alive until the graph is
/// dropped. Graph and owner may be on different threads, and CUDA's backward runs on a thread of libtorch, so the module
/// is reached under a lock:
///
/// ```
/// use ldm_libtorch::SharedModule;
///
/// let module = SharedModule::new(vec![1, 2]);
/// assert_eq!(module.with(|values| values.len()), 2);
/// ```
///
/// A borrow cannot leave [`with`](Self::with):
///
/// ```compile_fail
/// let module = ldm_libtorch::SharedModule::new(vec![1, 2]);
/// let values: &Vec<i32> = module.with(|values| values);
/// ```
#[derive(Debug)]
pub struct SharedModule<T>(Arc<Mutex<T>>);

impl<T> SharedModule<T> {
    /// Wraps `module`.
    pub fn new(module: T) -> Self {
        Self(Arc::new(Mutex::new(module)))
    }

    /// Calls `read` with the module. A `backward` through a checkpointed forward of this module must not run inside
    /// `read`: it would wait for the lock forever.
    pub fn with<R>(&self, read: impl FnOnce(&T) -> R) -> R {
        read(&self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

/// Runs `forward(module, inputs)` and keeps only `inputs` as activations; `backward` runs it a second time.
///
/// The second run restores the random state and the autocast of the first, so dropout drops the same values. Gradients
/// flow to `inputs` and to `params`, which must name every parameter that `forward` reads. If no gradient is recorded,
/// this is a plain call. Chen et al. 2016; CompVis `diffusionmodules/util.py:99`.
///
/// `backward` may call `forward` on another thread, and drop it and the module there. A closure with a value of one
/// thread is refused by the compiler,
///
/// ```compile_fail,E0277
/// use std::rc::Rc;
/// use ldm_libtorch::{SharedModule, checkpoint};
/// use tch::{Kind, Tensor};
///
/// let (module, x) = (SharedModule::new(2.), Tensor::ones([1], (Kind::Float, tch::Device::Cpu)));
/// let count = Rc::new(());
/// checkpoint(&module, &[], &[&x], move |factor, inputs| {
///     let _ = Rc::clone(&count);
///     &inputs[0] * *factor
/// });
/// ```
///
/// and so is one that changes a value without synchronization, or a module of one thread:
///
/// ```compile_fail,E0277
/// # use std::cell::Cell;
/// # use ldm_libtorch::{SharedModule, checkpoint};
/// # use tch::{Kind, Tensor};
/// # let (module, x) = (SharedModule::new(2.), Tensor::ones([1], (Kind::Float, tch::Device::Cpu)));
/// let calls = Cell::new(0);
/// checkpoint(&module, &[], &[&x], move |factor, inputs| {
///     calls.set(calls.get() + 1);
///     &inputs[0] * *factor
/// });
/// ```
///
/// ```compile_fail,E0277
/// # use std::rc::Rc;
/// # use ldm_libtorch::{SharedModule, checkpoint};
/// # use tch::{Kind, Tensor};
/// # let x = Tensor::ones([1], (Kind::Float, tch::Device::Cpu));
/// let module = SharedModule::new(Rc::new(2.));
/// checkpoint(&module, &[], &[&x], |factor, inputs| &inputs[0] * **factor);
/// ```
///
/// The same call with values that threads may share:
///
/// ```
/// use std::sync::atomic::{AtomicUsize, Ordering};
/// use std::{cell::Cell, sync::Arc};
/// use ldm_libtorch::{SharedModule, checkpoint};
/// use tch::{Kind, Tensor};
///
/// let x = Tensor::ones([1], (Kind::Float, tch::Device::Cpu)).set_requires_grad(true);
/// let module = SharedModule::new(Cell::new(2.));
/// let calls = Arc::new(AtomicUsize::new(0));
/// let counted = Arc::clone(&calls);
/// let out = checkpoint(&module, &[], &[&x], move |factor, inputs| {
///     counted.fetch_add(1, Ordering::Relaxed);
///     &inputs[0] * factor.get()
/// });
/// out.backward();
/// assert_eq!(calls.load(Ordering::Relaxed), 2);
/// assert_eq!(x.grad().double_value(&[0]), 2.);
/// ```
///
/// # Panics
/// When `inputs` is empty, or when `forward` panics.
pub fn checkpoint<T: Send + 'static>(
    module: &SharedModule<T>,
    params: &[Tensor],
    inputs: &[&Tensor],
    forward: impl Fn(&T, &[Tensor]) -> Tensor + Send + Sync + 'static,
) -> Tensor {
    let module = SharedModule(Arc::clone(&module.0));
    ffi::checkpoint(Box::new(move |inputs| module.with(|module| forward(module, inputs))), inputs, params)
        .expect("a checkpointed block that runs")
}
