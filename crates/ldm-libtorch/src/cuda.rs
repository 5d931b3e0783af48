//! CUDA: its half of libtorch, its devices, and the switches of its arithmetic.

use std::ffi::c_int;
use std::sync::OnceLock;

use tch::TchError;

use crate::ffi;

/// The state of libtorch's CUDA library, `libtorch_cuda.so`.
///
/// The program opens it before `main` if there is a GPU: libtorch looks for CUDA once, at the first use of anything that
/// could need it, for instance a seed, and for the rest of the process knows no CUDA if the library is not there yet.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum CudaLibrary {
    /// Not opened: there is no `/dev/nvidiactl`, `/dev/nvidia0` or `/dev/dxg`.
    NoDevice,
    /// Opened.
    Open,
    /// It could not be opened, with the dynamic linker's message.
    Failed(String),
}

/// Returns the state of libtorch's CUDA library.
pub fn cuda_library() -> CudaLibrary {
    match ffi::cuda_library() {
        (0, _) => CudaLibrary::NoDevice,
        (1, _) => CudaLibrary::Open,
        (_, reason) => CudaLibrary::Failed(reason),
    }
}

/// Returns the number of working CUDA devices.
pub fn cuda_device_count() -> usize {
    static COUNT: OnceLock<usize> = OnceLock::new();
    *COUNT.get_or_init(|| {
        let found = cuda_library() == CudaLibrary::Open && tch::Cuda::is_available();
        if found { tch::Cuda::device_count().max(0) as usize } else { 0 }
    })
}

/// Returns the compute capability of a CUDA device, (9, 0) for an H100, from the driver.
///
/// # Errors
/// With the driver's message, if there is no driver or no such device.
pub fn cuda_capability(device: usize) -> Result<(i32, i32), String> {
    ffi::cuda_capability(index(device)).map_err(first_line)
}

/// Makes a CUDA device that of this thread: libtorch uses it where no tensor names one. Otherwise that is the first GPU, on
/// which each process then takes memory for a context.
///
/// # Errors
/// With CUDA's message, if it cannot be used.
pub fn set_cuda_device(device: usize) -> Result<(), String> {
    ffi::cuda_set_device(index(device)).map_err(first_line)
}

/// Returns the sentence of an error, without advice for programmers and the stack of C++ below it.
fn first_line(error: TchError) -> String {
    let text = match error {
        TchError::Torch(text) => text,
        other => other.to_string(),
    };
    text.lines().next().unwrap_or_default().to_owned()
}

/// Beyond the range of C there is no device either.
fn index(device: usize) -> c_int {
    c_int::try_from(device).unwrap_or(c_int::MAX)
}

/// A scope in which a switch of the process has a value; dropping it restores the former value.
///
/// Scopes nest; they must be dropped in reverse order, as Rust's scopes do.
#[derive(Debug)]
#[must_use = "the former value returns when the scope is dropped"]
pub struct SwitchScope {
    set: fn(c_int) -> Result<c_int, TchError>,
    before: c_int,
}

impl SwitchScope {
    fn new(set: fn(c_int) -> Result<c_int, TchError>, value: c_int) -> Self {
        Self { set, before: set(value).expect("a switch") }
    }
}

impl Drop for SwitchScope {
    fn drop(&mut self) {
        // Restoring the former state cannot fail.
        let _ = (self.set)(self.before);
    }
}

/// Both bits of [`ffi::set_tf32`].
fn tf32_bits(on: bool) -> c_int {
    3 * c_int::from(on)
}

/// Sets whether CUDA may compute f32 products with 10 bits of mantissa (TF32), for matrix products and convolutions.
/// libtorch starts with false for the former and true for the latter.
///
/// # Panics
/// Never in practice: libtorch accepts both values.
pub fn set_tf32(on: bool) {
    ffi::set_tf32(tf32_bits(on)).expect("a switch");
}

/// Returns whether CUDA may compute f32 matrix products and convolutions in TF32.
///
/// # Panics
/// As [`set_tf32`].
pub fn tf32() -> bool {
    ffi::set_tf32(-1).expect("a switch") == tf32_bits(true)
}

/// [`set_tf32`] within a scope.
///
/// # Panics
/// As [`set_tf32`].
pub fn tf32_scope(on: bool) -> SwitchScope {
    SwitchScope::new(ffi::set_tf32, tf32_bits(on))
}

/// Switches to algorithms whose result does not depend on timing; an operation without one fails with its name.
///
/// Matrix products need no further setting: libtorch gives cuBLAS a workspace for each stream, which is one of the ways to
/// the same bits in cuBLAS' documentation ("Results reproducibility"), so that 2.11 does not ask for
/// `CUBLAS_WORKSPACE_CONFIG` (pytorch#161749).
///
/// # Panics
/// As [`set_tf32`].
pub fn set_deterministic(on: bool) {
    ffi::set_deterministic(c_int::from(on)).expect("a switch");
}

/// [`set_deterministic`] within a scope.
///
/// # Panics
/// As [`set_tf32`].
pub fn deterministic_scope(on: bool) -> SwitchScope {
    SwitchScope::new(ffi::set_deterministic, c_int::from(on))
}

/// Sets whether cuDNN times its algorithms on the first call with each shape and keeps the fastest.
///
/// # Panics
/// As [`set_tf32`].
pub fn set_cudnn_benchmark(on: bool) {
    ffi::set_cudnn_benchmark(on).expect("a switch");
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The values of the switches, left as they are.
    fn values() -> [c_int; 2] {
        [ffi::set_tf32, ffi::set_deterministic].map(|set| {
            let value = set(0).unwrap();
            set(value).unwrap();
            value
        })
    }

    #[test]
    fn scopes_restore_what_was_set_before() {
        let start = values();
        assert_eq!(start, [2, 0], "libtorch starts with TF32 in convolutions alone");
        assert!(!tf32());
        {
            let _outer = (tf32_scope(true), deterministic_scope(true));
            assert_eq!(values(), [3, 1]);
            assert!(tf32());
            {
                let _inner = (tf32_scope(false), deterministic_scope(false));
                assert_eq!(values(), [0, 0]);
            }
            assert_eq!(values(), [3, 1]);
        }
        assert_eq!(values(), start);
        set_tf32(false);
        assert_eq!(values()[0], 0, "for convolutions too");
        ffi::set_tf32(start[0]).unwrap();
    }
}
