//! Settings of the process itself.

use std::ffi::{c_char, c_int, c_void};

unsafe extern "C" {
    #[cfg(target_env = "gnu")]
    fn mallopt(option: c_int, value: c_int) -> c_int;
    fn dlopen(name: *const c_char, flags: c_int) -> *mut c_void;
}

/// Makes glibc keep freed memory for the next tensor; see [`crate::keep_freed_memory`].
#[cfg(target_env = "gnu")]
pub(crate) fn keep_freed_memory() {
    const M_TRIM_THRESHOLD: c_int = -1;
    const M_TOP_PAD: c_int = -2;
    const M_MMAP_MAX: c_int = -4;
    // No allocation of the main thread by `mmap`, whose memory is returned at once: a threshold for it cannot exceed
    // 32 MB, and an image's tensors are larger. -1 is the largest trim threshold and never trims.
    for (option, value) in [(M_MMAP_MAX, 0), (M_TRIM_THRESHOLD, -1), (M_TOP_PAD, 64 << 20)] {
        // SAFETY: plain values; mallopt refuses what it does not know.
        unsafe { mallopt(option, value) };
    }
}

/// Loads libtorch's CUDA library, which the linker drops because no symbol of it is used by name.
pub(crate) fn open_cuda_library() -> bool {
    const RTLD_NOW: c_int = 2;
    const RTLD_GLOBAL: c_int = 0x100;
    // SAFETY: a NUL-terminated name; loading runs libtorch's own registrations, as linking it would.
    let handle = unsafe { dlopen(c"libtorch_cuda.so".as_ptr(), RTLD_NOW | RTLD_GLOBAL) };
    !handle.is_null()
}
