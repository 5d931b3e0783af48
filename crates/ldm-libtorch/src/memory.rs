//! Memory statistics of devices and of this process.

use crate::ffi;

/// Bytes of CUDA's caching allocator.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub struct CudaMemory {
    /// Allocated now.
    pub current: i64,
    /// The most allocated at once since the start or [`reset_cuda_peak`].
    pub peak: i64,
    /// Reserved from the driver, free or used.
    pub reserved: i64,
}

/// Returns the statistics of CUDA device `device`; zeros without CUDA or before its first use.
///
/// # Panics
/// When CUDA works but has no such device.
pub fn cuda_memory(device: usize) -> CudaMemory {
    let [current, peak, reserved] = ffi::cuda_memory(device).expect("a device that exists");
    CudaMemory { current, peak, reserved }
}

/// Restarts [`CudaMemory::peak`] from now. Does nothing without CUDA.
///
/// # Panics
/// As [`cuda_memory`].
pub fn reset_cuda_peak(device: usize) {
    ffi::cuda_reset_peak(device).expect("a device that exists");
}

/// Returns cached, unused blocks to the driver. Does nothing without CUDA.
///
/// # Panics
/// When the driver refuses, because the device is lost.
pub fn empty_cuda_cache() {
    ffi::cuda_empty_cache().expect("a working device");
}

/// Makes the system's allocator keep freed memory for the next tensor, for programs that keep creating and dropping
/// large tensors, such as training. Otherwise glibc returns every tensor above 128 KiB to the kernel and pays for zeroed
/// pages at the next; a training step on the CPU is a tenth faster with this. The freed memory fragments, and the peak
/// grows: see `docs/guide/performance.md`.
pub fn keep_freed_memory() {
    #[cfg(target_env = "gnu")]
    ffi::keep_freed_memory();
}

/// Returns the peak resident memory of this process in bytes (Linux: `VmHWM`); 0 if unknown.
pub fn peak_resident_bytes() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    status
        .lines()
        .find_map(|line| line.strip_prefix("VmHWM:"))
        .and_then(|rest| rest.trim().trim_end_matches("kB").trim().parse::<u64>().ok())
        .map_or(0, |kilobytes| kilobytes * 1024)
}
