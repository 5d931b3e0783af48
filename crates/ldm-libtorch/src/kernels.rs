//! The kernels of `ldm-kernels` on tensors: CPU, f32 and in part bf16, without gradients.

mod attention;
mod conv3x3;
mod group_norm;
mod linear;
mod patches;

use std::cell::Cell;
use std::ffi::CStr;
use std::sync::LazyLock;
use std::sync::atomic::{AtomicU8, Ordering};
use std::time::Instant;

pub use ldm_kernels::{Level, ScaleShift, has_bf16_products};
use tch::{Device, Kind, Tensor};

use crate::ffi;

pub use attention::attention;
pub use conv3x3::{FusedConv, conv3x3, takes_conv3x3};
pub use group_norm::{GroupNormTensors, group_norm, group_norm_scale_shift};
pub use linear::{LinearTensors, conv1x1, linear, linear_geglu};
pub use patches::conv_of_patches;

/// The environment variable of the instruction set: `scalar`, `avx2` or `avx512`.
pub const KERNEL_LEVEL_VARIABLE: &str = "LDM_CPU";

/// 0: not selected yet; 1: libtorch's kernels; 2 + i: ours at level i.
static SELECTED: AtomicU8 = AtomicU8::new(0);

/// Selects the kernels of this process: ours at a level, or libtorch's.
///
/// # Panics
/// When this processor does not have the level.
pub fn set_kernels(level: Option<Level>) {
    assert!(level.is_none_or(Level::is_available), "a level of this processor");
    SELECTED.store(level.map_or(1, |level| 2 + level as u8), Ordering::Relaxed);
}

/// Returns the level of our kernels, or none if libtorch's are selected. By default it is the level of
/// [`kernel_level_of_environment`], or else the processor's best.
pub fn kernels() -> Option<Level> {
    match SELECTED.load(Ordering::Relaxed) {
        0 => {
            let level = kernel_level_of_environment().unwrap_or_default().unwrap_or_else(Level::detect);
            // Scalar kernels are for tests: libtorch's are faster.
            let level =
                (level > Level::Scalar || std::env::var_os(KERNEL_LEVEL_VARIABLE).is_some()).then_some(level);
            set_kernels(level);
            level
        }
        1 => None,
        selected => Some(Level::ALL[usize::from(selected) - 2]),
    }
}

/// Reads `LDM_CPU`.
///
/// # Errors
/// A sentence about a value that is no level, or one that this processor does not have.
pub fn kernel_level_of_environment() -> Result<Option<Level>, String> {
    let Some(value) = std::env::var_os(KERNEL_LEVEL_VARIABLE) else { return Ok(None) };
    let level: Level =
        value.to_string_lossy().parse().map_err(|error| format!("{KERNEL_LEVEL_VARIABLE}: {error}"))?;
    if !level.is_available() {
        return Err(format!("{KERNEL_LEVEL_VARIABLE}: this processor does not have {level}"));
    }
    Ok(Some(level))
}

/// Sets the kernels of a program: `ours`, on the CPU at the level of the environment, or else the processor's best; or
/// libtorch's.
///
/// # Errors
/// As [`kernel_level_of_environment`].
pub fn configure(ours: bool) -> Result<(), String> {
    let level = kernel_level_of_environment()?;
    crate::cuda_kernels::set_cuda_kernels(ours);
    if !ours {
        set_kernels(None);
    } else if level.is_some() {
        set_kernels(level);
    }
    Ok(())
}

thread_local! {
    /// True while this thread computes a forward pass that will be computed again with gradients.
    static REPEATED: Cell<bool> = const { Cell::new(false) };
}

/// Runs `body` with libtorch's kernels on this thread: a checkpointed block first runs without gradients, and must have the
/// same values when it runs again with them.
pub(crate) fn with_libtorchs<T>(body: impl FnOnce() -> T) -> T {
    struct Before(bool);
    impl Drop for Before {
        fn drop(&mut self) {
            REPEATED.set(self.0);
        }
    }
    let _before = Before(REPEATED.replace(true));
    body()
}

/// The level at which our kernels compute with `inputs`, if they can: f32 on the CPU, no gradient recorded, now or when the
/// same values are computed again.
fn level_for<const N: usize>(inputs: [&Tensor; N]) -> Option<Level> {
    level_of_dtype(Kind::Float, inputs)
}

/// [`level_for`] inputs of another dtype.
fn level_of_dtype<const N: usize>(kind: Kind, inputs: [&Tensor; N]) -> Option<Level> {
    let level = kernels()?;
    let fits = |x: &&Tensor| x.kind() == kind && x.device() == Device::Cpu;
    (inputs.iter().all(fits) && !ffi::grad_enabled() && !REPEATED.get()).then_some(level)
}

/// [`level_for`] maps in f32, and in bf16 where our f32 arithmetic is faster than libtorch's of bf16: without AMX.
fn level_for_maps<const N: usize>(inputs: [&Tensor; N]) -> Option<Level> {
    level_for(inputs).or_else(|| level_of_dtype(Kind::BFloat16, inputs).filter(|_| !has_amx()))
}

/// Applies `layer` to each image of `x` `[B, …]` alone where our kernels serve its dtype, so that an image has the same bytes
/// alone and in a batch: libtorch's choice of an algorithm depends on the batch. Elsewhere to all at once.
pub fn each_image(x: &Tensor, layer: impl Fn(&Tensor) -> Tensor) -> Tensor {
    let batch = x.size().first().copied().unwrap_or(1);
    if batch < 2 || level_for_maps([x]).is_none_or(|level| level == Level::Scalar) {
        return layer(x);
    }
    let images: Vec<_> = (0..batch).map(|index| layer(&x.narrow(0, index, 1))).collect();
    Tensor::cat(&images, 0)
}

/// Returns whether the processor multiplies tiles of bf16.
pub fn has_amx() -> bool {
    // Asked once: under a hypervisor CPUID takes microseconds.
    #[cfg(target_arch = "x86_64")]
    static HAS_AMX: LazyLock<bool> = LazyLock::new(|| {
        // Intel's manual, CPUID leaf 7: bit 22 of EDX is AMX-BF16. oneDNN, which computes with it, asks the system.
        std::arch::x86_64::__cpuid(0).eax >= 7 && std::arch::x86_64::__cpuid_count(7, 0).edx >> 22 & 1 == 1
    });
    #[cfg(not(target_arch = "x86_64"))]
    static HAS_AMX: LazyLock<bool> = LazyLock::new(|| false);
    *HAS_AMX
}

/// Counts `body` as an operation if this thread's operations are counted; `cost` returns its multiplications and additions
/// and its bytes.
pub(crate) fn counted<T>(
    name: &'static CStr,
    cost: impl FnOnce() -> [usize; 2],
    body: impl FnOnce() -> T,
) -> T {
    if !ffi::is_counting() {
        return body();
    }
    let start = Instant::now();
    let result = body();
    let seconds = start.elapsed().as_secs_f64();
    let [flop, bytes] = cost();
    ffi::count_operation(name, flop as i64, bytes as i64, seconds);
    result
}

/// A new channels_last tensor `[B, C, H, W]`.
fn empty_image([batch, channels, height, width]: [i64; 4], kind: Kind) -> Tensor {
    Tensor::empty([batch, height, width, channels], (kind, Device::Cpu)).permute([0, 3, 1, 2])
}
