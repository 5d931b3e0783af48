//! CUDA's half of libtorch, its devices, and the switches of its arithmetic.

use std::ffi::{CStr, c_char, c_int};

use tch::TchError;

use super::check;

unsafe extern "C" {
    fn ldm_cuda_library(error: *mut *const c_char) -> c_int;
    fn ldm_cuda_capability(device: c_int, major: *mut c_int, minor: *mut c_int) -> c_int;
    fn ldm_cuda_set_device(device: c_int) -> c_int;
    fn ldm_set_deterministic(on: c_int, before: *mut c_int) -> c_int;
    fn ldm_set_tf32(on: c_int, before: *mut c_int) -> c_int;
    fn ldm_set_cudnn_benchmark(on: c_int) -> c_int;
}

/// Returns the state of libtorch's CUDA library by its number in `ldm_torch.h`, and the reason of a failure.
pub(crate) fn cuda_library() -> (c_int, String) {
    let mut error = std::ptr::null();
    // SAFETY: the out parameter lives on this frame.
    let state = unsafe { ldm_cuda_library(&raw mut error) };
    // SAFETY: a NUL-terminated string that nothing writes after the start of the program.
    (state, unsafe { CStr::from_ptr(error) }.to_string_lossy().into_owned())
}

pub(crate) fn cuda_capability(device: c_int) -> Result<(i32, i32), TchError> {
    let (mut major, mut minor) = (0, 0);
    // SAFETY: the two out parameters live on this frame.
    check(unsafe { ldm_cuda_capability(device, &raw mut major, &raw mut minor) })?;
    Ok((major, minor))
}

pub(crate) fn cuda_set_device(device: c_int) -> Result<(), TchError> {
    // SAFETY: a plain value.
    check(unsafe { ldm_cuda_set_device(device) })
}

/// Returns the former value.
pub(crate) fn set_deterministic(on: c_int) -> Result<c_int, TchError> {
    let mut before = 0;
    // SAFETY: the out parameter lives on this frame.
    check(unsafe { ldm_set_deterministic(on, &raw mut before) })?;
    Ok(before)
}

/// Takes and returns bits: 1 for matrix products, 2 for convolutions; a negative value changes nothing.
pub(crate) fn set_tf32(on: c_int) -> Result<c_int, TchError> {
    let mut before = 0;
    // SAFETY: the out parameter lives on this frame.
    check(unsafe { ldm_set_tf32(on, &raw mut before) })?;
    Ok(before)
}

pub(crate) fn set_cudnn_benchmark(on: bool) -> Result<(), TchError> {
    // SAFETY: a plain value.
    check(unsafe { ldm_set_cudnn_benchmark(c_int::from(on)) })
}
