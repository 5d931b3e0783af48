//! Copies between host and device: the functions of `csrc/transfer.cpp`.

use std::ffi::{c_int, c_void};

use tch::{TchError, Tensor};

use super::{Out, Ptr, new_tensor, owned};

unsafe extern "C" {
    fn ldm_pin(input: Ptr, out: *mut Out) -> c_int;
    fn ldm_upload(input: Ptr, device: c_int, out: *mut Out) -> c_int;
    fn ldm_download_start(input: Ptr, out: *mut *mut c_void) -> c_int;
    fn ldm_download_wait(download: *mut c_void, out: *mut Out) -> c_int;
    fn ldm_download_free(download: *mut c_void);
}

pub(crate) fn pin(input: &Tensor) -> Result<Tensor, TchError> {
    // SAFETY: live handle in, new handle out.
    new_tensor(|out| unsafe { ldm_pin(input.as_ptr(), out) })
}

pub(crate) fn upload(input: &Tensor, device: usize) -> Result<Tensor, TchError> {
    // SAFETY: live handle in, new handle out.
    new_tensor(|out| unsafe { ldm_upload(input.as_ptr(), device as c_int, out) })
}

/// Owns a copy to the host in progress.
#[derive(Debug)]
pub(crate) struct RawDownload(*mut c_void);

impl Drop for RawDownload {
    fn drop(&mut self) {
        // SAFETY: made by ldm_download_start, freed once. The allocator of pinned memory keeps the copy's destination
        // until the copy is done.
        unsafe { ldm_download_free(self.0) }
    }
}

impl RawDownload {
    pub(crate) fn start(input: &Tensor) -> Result<Self, TchError> {
        // SAFETY: a live handle.
        owned(|out| unsafe { ldm_download_start(input.as_ptr(), out) }).map(Self)
    }

    pub(crate) fn wait(self) -> Result<Tensor, TchError> {
        // SAFETY: a live download; a new handle out.
        new_tensor(|out| unsafe { ldm_download_wait(self.0, out) })
    }
}
