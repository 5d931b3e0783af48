//! CUDA graphs: `csrc/graph.cpp`.

use std::any::Any;
use std::ffi::{c_int, c_void};
use std::panic::{AssertUnwindSafe, catch_unwind};

use tch::TchError;

use super::{check, owned};

unsafe extern "C" {
    fn ldm_graph_new(device: c_int, out: *mut *mut c_void) -> c_int;
    fn ldm_graph_begin(graph: *mut c_void) -> c_int;
    fn ldm_graph_finish(graph: *mut c_void) -> c_int;
    fn ldm_graph_replay(graph: *mut c_void) -> c_int;
    fn ldm_graph_free(graph: *mut c_void);
}

/// Runs before a recording: kernels are loaded, and workspaces allocated, in the first; a second finds all there.
const RUNS_BEFORE: usize = 2;

/// Owns an `at::cuda::CUDAGraph`.
#[derive(Debug)]
pub(crate) struct RawGraph(*mut c_void);

// SAFETY: a heap object; `record` ends all that belongs to the thread: the stream, the device and the capture.
unsafe impl Send for RawGraph {}

impl Drop for RawGraph {
    fn drop(&mut self) {
        // SAFETY: made by ldm_graph_new, freed once.
        unsafe { ldm_graph_free(self.0) }
    }
}

impl RawGraph {
    /// Records the last of three runs of `body`. Its panic is an error: libtorch refuses operations in a recording by one.
    pub(crate) fn record<T>(index: usize, mut body: impl FnMut() -> T) -> Result<(Self, T), TchError> {
        // SAFETY: a plain value; the out parameter is `owned`'s.
        let graph = Self(owned(|out| unsafe { ldm_graph_new(index as c_int, out) })?);
        let recorded = catch_unwind(AssertUnwindSafe(|| {
            for _ in 0..RUNS_BEFORE {
                body();
            }
            // SAFETY: a live graph, here and below.
            check(unsafe { ldm_graph_begin(graph.0) })?;
            let result = body();
            check(unsafe { ldm_graph_finish(graph.0) })?;
            Ok(result)
        }));
        let result = recorded.unwrap_or_else(|panic| Err(TchError::Torch(text_of(&*panic))))?;
        Ok((graph, result))
    }

    pub(crate) fn replay(&self) -> Result<(), TchError> {
        // SAFETY: a live graph.
        check(unsafe { ldm_graph_replay(self.0) })
    }
}

/// The message of a panic.
fn text_of(panic: &(dyn Any + Send)) -> String {
    let text = panic.downcast_ref::<String>().map(String::as_str);
    text.or_else(|| panic.downcast_ref::<&str>().copied()).unwrap_or("a panic").to_owned()
}
