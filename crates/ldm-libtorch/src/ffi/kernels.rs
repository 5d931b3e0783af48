//! libtorch's threads and the memory of its tensors, for the kernels of `ldm-kernels`.

use std::any::Any;
use std::ffi::{c_int, c_void};
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::{Mutex, PoisonError};

use ldm_kernels::Threads;
use tch::{Device, Kind, Tensor};

use super::check;

unsafe extern "C" {
    fn ldm_parallel(tasks: usize, task: extern "C" fn(*mut c_void, usize), state: *mut c_void) -> c_int;
    safe fn ldm_grad_enabled() -> c_int;
}

/// libtorch's own threads.
pub(crate) struct TorchThreads;

/// The task of one run, and the panic of a task.
struct Run<'a> {
    task: &'a (dyn Fn(usize) + Sync),
    panic: Mutex<Option<Box<dyn Any + Send>>>,
}

extern "C" fn run_task(state: *mut c_void, index: usize) {
    // SAFETY: `state` is the `Run` of `TorchThreads::run`, which outlives the call and may be shared by threads.
    let run = unsafe { &*state.cast::<Run>() };
    // A panic must not cross C++.
    if let Err(panic) = catch_unwind(AssertUnwindSafe(|| (run.task)(index))) {
        *run.panic.lock().unwrap_or_else(PoisonError::into_inner) = Some(panic);
    }
}

impl Threads for TorchThreads {
    fn count(&self) -> usize {
        tch::get_num_threads().max(1) as usize
    }

    fn run(&self, tasks: usize, task: &(dyn Fn(usize) + Sync)) {
        let mut run = Run { task, panic: Mutex::new(None) };
        // SAFETY: `run_task` is called before this returns, with `run` alone, which is `Sync`.
        let status = unsafe { ldm_parallel(tasks, run_task, (&raw mut run).cast()) };
        if let Some(panic) = run.panic.into_inner().unwrap_or_else(PoisonError::into_inner) {
            resume_unwind(panic);
        }
        check(status).expect("libtorch runs tasks");
    }
}

/// Returns whether operations of this thread are recorded for a backward pass.
pub(crate) fn grad_enabled() -> bool {
    ldm_grad_enabled() != 0
}

/// Numbers of a tensor as the kernels read them.
pub(crate) trait Number: Copy {
    /// The dtype of the tensor.
    const KIND: Kind;
}

impl Number for f32 {
    const KIND: Kind = Kind::Float;
}

/// The bits of bf16.
impl Number for u16 {
    const KIND: Kind = Kind::BFloat16;
}

/// Returns the numbers of a dense tensor on the CPU in the order of memory. Nothing may change it meanwhile; as for any
/// operation of libtorch, that is the caller's care.
///
/// # Panics
/// When the tensor has another dtype or device, or does not fill its memory without gaps.
pub(crate) fn values<T: Number>(of: &Tensor) -> &[T] {
    let count = dense_values::<T>(of);
    if count == 0 {
        return &[]; // its pointer may be null
    }
    // SAFETY: a live CPU tensor of `count` such numbers without gaps, which lives as long as the borrow.
    unsafe { std::slice::from_raw_parts(of.data_ptr().cast::<T>(), count) }
}

/// [`values`] to write to: of a tensor that nothing else refers to.
pub(crate) fn values_mut<T: Number>(of: &mut Tensor) -> &mut [T] {
    let count = dense_values::<T>(of);
    if count == 0 {
        return &mut [];
    }
    // SAFETY: as `values`, and exclusively borrowed.
    unsafe { std::slice::from_raw_parts_mut(of.data_ptr().cast::<T>(), count) }
}

fn dense_values<T: Number>(of: &Tensor) -> usize {
    assert!(of.kind() == T::KIND && of.device() == Device::Cpu, "a tensor of {:?} on the CPU", T::KIND);
    let mut axes: Vec<(i64, i64)> =
        of.stride().into_iter().zip(of.size()).filter(|(_, size)| *size != 1).collect();
    axes.sort_unstable();
    let mut next = 1;
    for (stride, size) in axes {
        assert!(stride == next || of.numel() == 0, "a tensor without gaps");
        next *= size;
    }
    of.numel()
}
