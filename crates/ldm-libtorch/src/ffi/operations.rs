//! The observer of libtorch's dispatcher.

use std::ffi::{CStr, c_char, c_int, c_void};

use tch::TchError;

use super::check;
use crate::operations::Operation;

type ReportOperation = extern "C" fn(*mut c_void, *const c_char, i64, i64, i64, f64);

unsafe extern "C" {
    fn ldm_operations_start() -> c_int;
    fn ldm_operations_stop(report: ReportOperation, state: *mut c_void) -> c_int;
    safe fn ldm_operations_counting() -> c_int;
    fn ldm_operations_add(name: *const c_char, flop: i64, bytes: i64, seconds: f64) -> c_int;
}

/// An observer of this thread's operations until it is dropped. Only one may exist at a time.
pub(crate) struct Observer(());

impl Observer {
    pub(crate) fn start() -> Result<Self, TchError> {
        // SAFETY: no arguments.
        check(unsafe { ldm_operations_start() })?;
        Ok(Self(()))
    }

    /// Ends observation and returns the operations.
    pub(crate) fn stop(self) -> Vec<Operation> {
        let seen = stop();
        std::mem::forget(self); // there is nothing left to drop
        seen
    }
}

impl Drop for Observer {
    fn drop(&mut self) {
        stop(); // after a panic of the observed code
    }
}

/// Returns whether this thread's operations are counted.
pub(crate) fn is_counting() -> bool {
    ldm_operations_counting() != 0
}

/// Counts an operation that is not libtorch's.
pub(crate) fn count_operation(name: &CStr, flop: i64, bytes: i64, seconds: f64) {
    // SAFETY: the name lives during the call.
    let status = unsafe { ldm_operations_add(name.as_ptr(), flop, bytes, seconds) };
    check(status).expect("a sum in memory");
}

fn stop() -> Vec<Operation> {
    let mut seen: Vec<Operation> = Vec::new();
    // SAFETY: `collect` is called before this returns, with `seen` alone.
    let status = unsafe { ldm_operations_stop(collect, (&raw mut seen).cast()) };
    if check(status).is_err() { Vec::new() } else { seen }
}

extern "C" fn collect(
    state: *mut c_void,
    name: *const c_char,
    calls: i64,
    flop: i64,
    bytes: i64,
    seconds: f64,
) {
    // SAFETY: `state` is the list of `stop`, and `name` a NUL-terminated string; both live during the call.
    let (seen, name) = unsafe { (&mut *state.cast::<Vec<Operation>>(), CStr::from_ptr(name)) };
    let name = name.to_string_lossy().into_owned();
    seen.push(Operation { name, calls, flop, bytes, seconds });
}
