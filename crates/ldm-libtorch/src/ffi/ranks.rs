//! Process groups: the functions of `csrc/ranks.h`.

use std::ffi::{CString, c_char, c_int, c_void};

use tch::{TchError, Tensor};

use super::{Ptr, check, owned, pointers};

unsafe extern "C" {
    fn ldm_group_connect(
        host: *const c_char,
        port: c_int,
        serve: c_int,
        listen_fd: c_int,
        rank: c_int,
        world: c_int,
        seconds: f64,
        nccl_seconds: f64,
        out: *mut *mut c_void,
    ) -> c_int;
    fn ldm_group_free(group: *mut c_void);
    fn ldm_group_close(group: *mut c_void) -> c_int;
    fn ldm_group_all_reduce(
        group: *mut c_void,
        value: Ptr,
        operation: c_int,
        work: *mut *mut c_void,
    ) -> c_int;
    fn ldm_group_broadcast(group: *mut c_void, value: Ptr, from: c_int, work: *mut *mut c_void) -> c_int;
    fn ldm_work_wait(work: *mut c_void) -> c_int;
    fn ldm_group_count(group: *mut c_void, key: *const c_char, add: i64, now: *mut i64) -> c_int;
    fn ldm_reducer_new(
        group: *mut c_void,
        params: *const Ptr,
        count: usize,
        world: c_int,
        bucket_bytes: usize,
        out: *mut *mut c_void,
    ) -> c_int;
    fn ldm_reducer_free(reducer: *mut c_void);
    fn ldm_reducer_clear(reducer: *mut c_void) -> c_int;
    fn ldm_reducer_arm(reducer: *mut c_void) -> c_int;
    fn ldm_reducer_finish(reducer: *mut c_void, overlapped: *mut i64, buckets: *mut i64) -> c_int;
}

/// Owns a group of processes.
#[derive(Debug)]
pub(crate) struct RawGroup(*mut c_void);

// SAFETY: a heap object without thread affinity. Its store and its backends lock themselves: c10d has them called
// from autograd's threads.
unsafe impl Send for RawGroup {}
// SAFETY: as above.
unsafe impl Sync for RawGroup {}

impl Drop for RawGroup {
    fn drop(&mut self) {
        // SAFETY: made by ldm_group_connect, freed once; reducers and works hold references of their own.
        unsafe { ldm_group_free(self.0) }
    }
}

impl RawGroup {
    /// Connects; with `serve` this process runs the store, on the given listening socket if there is one. The timeouts
    /// are those of gloo and of NCCL, 0 for a group without it.
    #[allow(
        clippy::option_option,
        reason = "the store may be elsewhere, here, or here on a socket of the launcher"
    )]
    pub(crate) fn connect(
        host: &CString,
        port: u16,
        serve: Option<Option<c_int>>,
        [rank, world]: [usize; 2],
        [seconds, nccl_seconds]: [f64; 2],
    ) -> Result<Self, TchError> {
        // SAFETY: a NUL-terminated string and plain values.
        owned(|out| unsafe {
            ldm_group_connect(
                host.as_ptr(),
                c_int::from(port),
                c_int::from(serve.is_some()),
                serve.flatten().unwrap_or(-1),
                rank as c_int,
                world as c_int,
                seconds,
                nccl_seconds,
                out,
            )
        })
        .map(Self)
    }

    pub(crate) fn close(&self) -> Result<(), TchError> {
        // SAFETY: a live group.
        check(unsafe { ldm_group_close(self.0) })
    }

    pub(crate) fn all_reduce(&self, value: &Tensor, largest: bool) -> Result<RawWork, TchError> {
        // SAFETY: live handles; the work keeps a reference to the tensor.
        owned(|out| unsafe { ldm_group_all_reduce(self.0, value.as_ptr(), c_int::from(largest), out) })
            .map(RawWork)
    }

    pub(crate) fn broadcast(&self, value: &Tensor, from: usize) -> Result<RawWork, TchError> {
        // SAFETY: as `all_reduce`.
        owned(|out| unsafe { ldm_group_broadcast(self.0, value.as_ptr(), from as c_int, out) }).map(RawWork)
    }

    pub(crate) fn count(&self, key: &CString, add: i64) -> Result<i64, TchError> {
        let mut now = 0;
        // SAFETY: a NUL-terminated string; the out parameter lives on this frame.
        check(unsafe { ldm_group_count(self.0, key.as_ptr(), add, &raw mut now) })?;
        Ok(now)
    }
}

/// Owns a collective operation in progress.
#[derive(Debug)]
pub(crate) struct RawWork(*mut c_void);

impl RawWork {
    pub(crate) fn wait(self) -> Result<(), TchError> {
        let work = std::mem::ManuallyDrop::new(self);
        // SAFETY: the C side frees it, once; `drop` is not run.
        check(unsafe { ldm_work_wait(work.0) })
    }
}

impl Drop for RawWork {
    fn drop(&mut self) {
        // SAFETY: as `wait`. A failure is ignored here: the next collective operation reports it again.
        unsafe { ldm_work_wait(self.0) };
    }
}

/// Owns a gradient reducer and its hooks.
#[derive(Debug)]
pub(crate) struct RawReducer(*mut c_void);

impl Drop for RawReducer {
    fn drop(&mut self) {
        // SAFETY: made by ldm_reducer_new, freed once; removes the hooks from the parameters.
        unsafe { ldm_reducer_free(self.0) }
    }
}

impl RawReducer {
    pub(crate) fn new(
        group: &RawGroup,
        params: &[Tensor],
        world: usize,
        bucket_bytes: usize,
    ) -> Result<Self, TchError> {
        let params = pointers(params);
        // SAFETY: an array of live handles, which the C side copies.
        owned(|out| unsafe {
            ldm_reducer_new(group.0, params.as_ptr(), params.len(), world as c_int, bucket_bytes, out)
        })
        .map(Self)
    }

    pub(crate) fn clear(&self) -> Result<(), TchError> {
        // SAFETY: a live reducer.
        check(unsafe { ldm_reducer_clear(self.0) })
    }

    pub(crate) fn arm(&self) -> Result<(), TchError> {
        // SAFETY: a live reducer.
        check(unsafe { ldm_reducer_arm(self.0) })
    }

    pub(crate) fn finish(&self) -> Result<[i64; 2], TchError> {
        let mut counts = [0; 2];
        let [overlapped, buckets] = &mut counts;
        // SAFETY: a live reducer; the out parameters live on this frame.
        check(unsafe { ldm_reducer_finish(self.0, overlapped, buckets) })?;
        Ok(counts)
    }
}
