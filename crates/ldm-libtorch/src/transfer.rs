//! Copies between the host and CUDA that do not wait for the device.

use tch::{Device, Tensor};

use crate::ffi;

/// Copies a tensor of the CPU to page-locked ("pinned") memory if `device` is CUDA, for [`upload`]; otherwise returns it.
///
/// # Panics
/// When the driver has no more memory to lock.
pub fn pin(tensor: &Tensor, device: Device) -> Tensor {
    if device.is_cuda() && tensor.device() == Device::Cpu {
        ffi::pin(tensor).expect("memory that can be locked")
    } else {
        tensor.shallow_clone()
    }
}

/// Copies a tensor to `device`, from the CPU to CUDA without waiting for it; `tensor` may be dropped or changed at once.
///
/// A copy from ordinary memory waits until the device has done everything before it, so that the host cannot queue the
/// next operations meanwhile. Here the bytes pass through pinned memory ([`pin`]) and the copy is queued. libtorch's
/// allocator of pinned memory records an event after each such copy, and gives the memory out again only when that event
/// has passed (`ATen/core/CachingHostAllocator.h`).
///
/// # Panics
/// When the device does not exist or has no memory left. A tensor that was pinned must not be changed before the copy is
/// done.
pub fn upload(tensor: &Tensor, device: Device) -> Tensor {
    match device {
        Device::Cuda(index) if tensor.device() == Device::Cpu => {
            ffi::upload(tensor, index).expect("a device that exists")
        }
        _ => tensor.to_device(device),
    }
}

/// A copy to the CPU in progress: from CUDA it is queued after the operations so far, and does not wait for those after
/// it.
#[derive(Debug)]
#[must_use = "the copy is available after `wait`"]
pub struct Download(ffi::RawDownload);

impl Download {
    /// Queues the copy of a tensor; one on the CPU is not copied.
    ///
    /// # Panics
    /// When the driver has no more memory to lock.
    pub fn start(tensor: &Tensor) -> Self {
        Self(ffi::RawDownload::start(tensor).expect("memory that can be locked"))
    }

    /// Waits for the copy, and for nothing that was queued after it.
    ///
    /// # Panics
    /// When an operation before it failed on the device.
    pub fn wait(self) -> Tensor {
        self.0.wait().expect("a working device")
    }
}
