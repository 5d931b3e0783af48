//! How much memory a device or this process took.

use crate::ffi;

/// Bytes of CUDA's caching allocator.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub struct CudaMemory {
    /// Allocated now.
    pub current: i64,
    /// The most allocated at once since the start or [`reset_cuda_peak`].
    pub peak: i64,
    /// Held from the driver, free or used.
    pub reserved: i64,
}

/// The statistics of CUDA device `device`; zeros where there is no CUDA or it was not used yet.
///
/// # Panics
/// When CUDA works and has no such device.
pub fn cuda_memory(device: usize) -> CudaMemory {
    let [current, peak, reserved] = ffi::cuda_memory(device).expect("a device that exists");
    CudaMemory { current, peak, reserved }
}

/// Makes the present the start of [`CudaMemory::peak`]. Nothing happens without CUDA.
///
/// # Panics
/// As [`cuda_memory`].
pub fn reset_cuda_peak(device: usize) {
    ffi::cuda_reset_peak(device).expect("a device that exists");
}

/// Gives cached, unused blocks back to the driver. Nothing happens without CUDA.
///
/// # Panics
/// When the driver refuses, which means that the device is lost.
pub fn empty_cuda_cache() {
    ffi::cuda_empty_cache().expect("a working device");
}

/// Has the system's allocator keep freed memory for the next tensor, for programs that make and drop large tensors
/// all the time, as training does. Without it glibc gives every tensor above 128 KiB back to the kernel, and pays
/// for fresh, zeroed pages at the next; a training step on the CPU is a tenth faster with it. What was freed is kept in
/// pieces, and the peak grows: see `docs/performance.md`.
pub fn keep_freed_memory() {
    #[cfg(target_env = "gnu")]
    ffi::keep_freed_memory();
}

/// The most resident memory this process had, in bytes (Linux: `VmHWM`); 0 where that is unknown.
pub fn peak_resident_bytes() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    status
        .lines()
        .find_map(|line| line.strip_prefix("VmHWM:"))
        .and_then(|rest| rest.trim().trim_end_matches("kB").trim().parse::<u64>().ok())
        .map_or(0, |kilobytes| kilobytes * 1024)
}
