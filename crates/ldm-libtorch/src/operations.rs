//! Counting of operations and their cost.

use std::sync::{Mutex, PoisonError};

use crate::ffi::{Observer, is_counting};

/// All calls of one operation.
#[derive(Debug, Clone, PartialEq)]
pub struct Operation {
    /// The name in libtorch: `aten::conv2d`.
    pub name: String,
    /// Number of calls.
    pub calls: i64,
    /// Multiplications and additions of convolutions, matrix products and attention, as
    /// `torch.utils.flop_counter.FlopCounterMode` counts them: a multiplication with its addition is two. Other
    /// operations count zero.
    pub flop: i64,
    /// Bytes read and written, every input and output once; a view moves none. Caches and fusion need less, a kernel with
    /// two passes over its input (a norm) more.
    pub bytes: i64,
    /// Seconds until the calls returned: on the CPU until completion, on CUDA until launch.
    pub seconds: f64,
}

/// Returns true inside of [`count_operations`] on this thread.
pub fn is_counting_operations() -> bool {
    is_counting()
}

/// Runs `body` and returns the operations it called on this thread, forward and backward, sorted by name. Operations
/// called inside another one count as part of it.
///
/// The overhead is microseconds per call. One count runs at a time; others wait.
///
/// # Panics
/// When `body` panics, or counts operations itself.
pub fn count_operations<T>(body: impl FnOnce() -> T) -> (T, Vec<Operation>) {
    static LOCK: Mutex<()> = Mutex::new(());
    let _guard = LOCK.lock().unwrap_or_else(PoisonError::into_inner);
    let observer = Observer::start().expect("libtorch has an observer");
    let result = body();
    (result, observer.stop())
}
