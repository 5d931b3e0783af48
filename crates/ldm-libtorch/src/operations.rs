//! What operations run, and what they cost.

use std::sync::{Mutex, PoisonError};

use crate::ffi::Observer;

/// All calls of one operation.
#[derive(Debug, Clone, PartialEq)]
pub struct Operation {
    /// As libtorch calls it: `aten::conv2d`.
    pub name: String,
    /// How often it ran.
    pub calls: i64,
    /// Multiplications and additions of convolutions, matrix products and attention, as
    /// `torch.utils.flop_counter.FlopCounterMode` counts them: a multiplication with its addition is two. All else
    /// computes nothing that counts.
    pub flop: i64,
    /// Bytes it read and wrote, every input and output once; a view moves none. Caches and fusion make it less, a kernel
    /// that passes twice over its input (a norm) makes it more.
    pub bytes: i64,
    /// Until it returned: on the CPU until it was done, on CUDA until it was launched.
    pub seconds: f64,
}

/// Runs `body` and says which operations it called on this thread, forward and backward, sorted by name. What an
/// operation calls in turn is its own.
///
/// It costs microseconds a call. One count runs at a time, others wait.
///
/// # Panics
/// When `body` does, or counts itself.
pub fn count_operations<T>(body: impl FnOnce() -> T) -> (T, Vec<Operation>) {
    static TURN: Mutex<()> = Mutex::new(());
    let _turn = TURN.lock().unwrap_or_else(PoisonError::into_inner);
    let observer = Observer::start().expect("libtorch has an observer");
    let result = body();
    (result, observer.stop())
}
