//! Settings of the process itself.

use std::ffi::c_int;

unsafe extern "C" {
    fn mallopt(option: c_int, value: c_int) -> c_int;
}

/// Makes glibc keep freed memory for the next tensor; see [`crate::keep_freed_memory`].
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
