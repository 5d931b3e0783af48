//! The kernels of `kernels/` as functions of libtorch: `csrc/fused_norm.cpp`, `csrc/fused_sums.cpp`, `csrc/driver.cpp`.

use std::ffi::{CStr, c_char, c_int};

use tch::{TchError, Tensor};

use super::{Out, Ptr, check, new_tensor};
use crate::cuda_kernels::geometry::{BlockTiling, GpuLimits};

/// `ldm_norm_plan` of `csrc/ldm_torch.h`.
#[repr(C)]
#[derive(Debug, Clone, Copy)]
pub(crate) struct NormPlan {
    pub(crate) groups: i64,
    pub(crate) eps: f64,
    pub(crate) silu: c_int,
    /// 1: the forward is one launch.
    pub(crate) slab: c_int,
    pub(crate) forward: BlockTiling,
    pub(crate) backward: BlockTiling,
}

unsafe extern "C" {
    fn ldm_add_compiled(
        module: *const c_char,
        ptx: *const u8,
        ptx_bytes: usize,
        cubin: *const u8,
        cubin_bytes: usize,
    ) -> c_int;
    fn ldm_gpu_limits(device: c_int, multiprocessors: *mut c_int, shared_bytes: *mut c_int) -> c_int;
    safe fn ldm_has_emulator() -> c_int;
    safe fn ldm_set_emulator_order(order: u64);
    fn ldm_fused_group_norm(plan: *const NormPlan, tensors: *const Ptr, out: *mut Out) -> c_int;
    fn ldm_fused_bias_add(
        tiling: *const BlockTiling,
        x: Ptr,
        channel_bias: Ptr,
        image_bias: Ptr,
        residual: Ptr,
        out: *mut Out,
    ) -> c_int;
    fn ldm_fused_geglu(tiling: *const BlockTiling, x: Ptr, out: *mut Out) -> c_int;
}

/// Gives the driver the compiled code of a file of `kernels/`.
pub(crate) fn add_compiled(module: &CStr, ptx: &[u8], cubin: &[u8]) -> Result<(), TchError> {
    // SAFETY: a NUL-terminated name and two slices, which the C side copies.
    check(unsafe { ldm_add_compiled(module.as_ptr(), ptx.as_ptr(), ptx.len(), cubin.as_ptr(), cubin.len()) })
}

/// Asks the driver; fails without one.
pub(crate) fn gpu_limits(device: usize) -> Result<GpuLimits, TchError> {
    let (mut multiprocessors, mut shared_bytes) = (0, 0);
    // SAFETY: the out parameters live on this frame.
    check(unsafe { ldm_gpu_limits(device as c_int, &raw mut multiprocessors, &raw mut shared_bytes) })?;
    Ok(GpuLimits { multiprocessors: multiprocessors.into(), shared_bytes: shared_bytes.into() })
}

/// Returns whether this build can run the kernels on the CPU.
pub(crate) fn has_emulator() -> bool {
    ldm_has_emulator() != 0
}

/// Sets the order of emulated threads of this thread's launches.
pub(crate) fn set_emulator_order(order: u64) {
    ldm_set_emulator_order(order);
}

fn pointer(of: Option<&Tensor>) -> Ptr {
    of.map_or(std::ptr::null(), Tensor::as_ptr)
}

/// `tensors`: x, weight, bias, channel shift, image shift, scale and shift.
pub(crate) fn fused_group_norm(plan: &NormPlan, tensors: [Option<&Tensor>; 6]) -> Result<Tensor, TchError> {
    let tensors = tensors.map(pointer);
    // SAFETY: a plan that the C side copies, and six live handles or nulls; a new handle out.
    new_tensor(|out| unsafe { ldm_fused_group_norm(plan, tensors.as_ptr(), out) })
}

/// `added`: channel bias, image bias, residual.
pub(crate) fn fused_bias_add(
    tiling: &BlockTiling,
    x: &Tensor,
    added: [Option<&Tensor>; 3],
) -> Result<Tensor, TchError> {
    let [channel_bias, image_bias, residual] = added.map(pointer);
    // SAFETY: as `fused_group_norm`.
    new_tensor(|out| unsafe {
        ldm_fused_bias_add(tiling, x.as_ptr(), channel_bias, image_bias, residual, out)
    })
}

pub(crate) fn fused_geglu(tiling: &BlockTiling, x: &Tensor) -> Result<Tensor, TchError> {
    // SAFETY: as `fused_group_norm`.
    new_tensor(|out| unsafe { ldm_fused_geglu(tiling, x.as_ptr(), out) })
}
