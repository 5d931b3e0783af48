//! Memory of the CPU: checks before large allocations, and messages of failed ones.

use std::fmt;

use sysinfo::{MemoryRefreshKind, System};

use crate::{Error, Result};

/// Returns the bytes that this process can still allocate: available RAM and free swap, within the limits of the control
/// group and of the address space (`ulimit -v`).
pub fn available() -> u64 {
    let mut system = System::new();
    system.refresh_memory_specifics(MemoryRefreshKind::everything());
    let machine = system.available_memory() + system.free_swap();
    let group = system.cgroup_limits().map_or(u64::MAX, |limits| limits.free_memory + limits.free_swap);
    machine.min(group).min(address_space())
}

/// The rest of the limit of the address space; `u64::MAX` without one.
#[cfg(target_os = "linux")]
fn address_space() -> u64 {
    use rustix::process::{Resource, getrlimit};
    let Some(limit) = getrlimit(Resource::As).current else { return u64::MAX };
    // Pages of this process, from the kernel: sysinfo would read those of every process.
    let pages = std::fs::read_to_string("/proc/self/statm").unwrap_or_default();
    let pages: u64 = pages.split(' ').next().and_then(|pages| pages.parse().ok()).unwrap_or(0);
    limit.saturating_sub(pages * rustix::param::page_size() as u64)
}

#[cfg(not(target_os = "linux"))]
fn address_space() -> u64 {
    u64::MAX
}

/// Checks that at least `bytes` can be allocated; `what` of `got` needs them.
///
/// # Errors
/// [`Error::Invalid`] with both amounts.
pub fn check(what: &str, got: impl fmt::Display, bytes: f64) -> Result<()> {
    let available = available() as f64;
    if bytes <= available {
        return Ok(());
    }
    Err(Error::invalid(format!(
        "{what}: expected at most the {} of memory that are available, got {got}, which takes at least {}; try a smaller \
         size",
        size_text(available),
        size_text(bytes)
    )))
}

/// A failed allocation of libtorch. It is not an [`Error`], since tch panics with it in the middle of a network.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FailedAllocation {
    cuda: bool,
    /// The size of the allocation, as libtorch writes it.
    requested: Option<String>,
    /// The same, of the CPU.
    bytes: Option<u64>,
}

impl fmt::Display for FailedAllocation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(if self.cuda { "the GPU is out of memory" } else { "out of memory" })?;
        if let Some(requested) = &self.requested {
            write!(f, ": {requested} requested")?;
            // What the failed program held may be free again by now.
            let left = available();
            if self.bytes.is_some_and(|bytes| left < bytes) {
                write!(f, ", {} available", size_text(left as f64))?;
            }
        }
        f.write_str(
            "; try a smaller size, a smaller batch size, --tile auto where there is one, or --dtype bf16",
        )
    }
}

impl std::error::Error for FailedAllocation {}

/// Returns the failed allocation of which the message of an error or a panic of libtorch tells.
///
/// c10 `CPUAllocator.cpp` `posix_memalign`, `CUDACachingAllocator.cpp` `malloc`, `TensorImpl.h` for sizes beyond i64.
pub fn failed_allocation(message: &str) -> Option<FailedAllocation> {
    let after = |text: &str| message.split_once(text).map(|(_, rest)| rest);
    if message.contains("CUDA out of memory") {
        let requested =
            after("Tried to allocate ").and_then(|rest| rest.split_once(". ")).map(|(size, _)| size.into());
        return Some(FailedAllocation { cuda: true, requested, bytes: None });
    }
    if message.contains("DefaultCPUAllocator: ") && message.contains("allocate memory") {
        let bytes =
            after("you tried to allocate ").and_then(|rest| rest.split(' ').next()?.parse::<u64>().ok());
        let requested = bytes.map(|bytes| size_text(bytes as f64));
        return Some(FailedAllocation { cuda: false, requested, bytes });
    }
    let beyond = ["calculation overflowed", "integer multiplication overflow", "std::bad_alloc"];
    let beyond = beyond.iter().any(|text| message.contains(text));
    beyond.then_some(FailedAllocation { cuda: false, requested: None, bytes: None })
}

/// Formats bytes: 34359738368 → 34.4 GB, 12582912 → 12.6 MB.
fn size_text(bytes: f64) -> String {
    if bytes < 1e8 { format!("{:.1} MB", bytes / 1e6) } else { format!("{:.1} GB", bytes / 1e9) }
}

#[cfg(test)]
mod tests {
    use tch::{Device, Kind, Tensor};

    use super::*;

    #[test]
    fn what_fits_passes_and_what_does_not_is_refused() {
        check("image", "1x1", 1e6).unwrap();
        let error = check("height and width", "1000000x1000000", 1.2e13).unwrap_err().to_string();
        assert!(error.starts_with("height and width: expected at most the "), "{error}");
        assert!(error.contains("got 1000000x1000000, which takes at least 12000.0 GB"), "{error}");
    }

    #[test]
    fn messages_of_libtorch_are_recognized() {
        for size in [[1_i64 << 40, 1 << 12], [1 << 40, 1 << 40]] {
            let error = Tensor::f_zeros(size.as_slice(), (Kind::Float, Device::Cpu)).unwrap_err().to_string();
            let found = failed_allocation(&error).unwrap_or_else(|| panic!("{error}"));
            assert!(found.to_string().starts_with("out of memory"), "{found}");
        }
        let cpu = |bytes: u64| {
            let message =
                format!("DefaultCPUAllocator: can't allocate memory: you tried to allocate {bytes} bytes.");
            failed_allocation(&message).unwrap().to_string()
        };
        assert!(cpu(1 << 50).starts_with("out of memory: 1125899.9 GB requested, "));
        assert!(cpu(1 << 50).contains(" available; try a smaller size"));
        let small = cpu(12_582_912);
        assert!(small.starts_with("out of memory: 12.6 MB requested; try a smaller size"), "{small}");
        let cuda = "CUDA out of memory. Tried to allocate 2.50 GiB. GPU 0 has a total capacity of 8 GiB";
        let expected = "the GPU is out of memory: 2.50 GiB requested; try";
        assert!(failed_allocation(cuda).unwrap().to_string().starts_with(expected));
        assert_eq!(failed_allocation("shape mismatch"), None);
    }
}
