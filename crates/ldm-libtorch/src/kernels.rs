//! The kernels of `ldm-kernels` on tensors: CPU, f32, without gradients.

use std::cell::Cell;
use std::ffi::CStr;
use std::sync::atomic::{AtomicU8, AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::Instant;

use ldm_kernels::{
    AttentionSize, Conv3x3Epilogue, Conv3x3Prologue, Conv3x3Weights, GroupNormParameters, ImageSize,
};
pub use ldm_kernels::{Level, ScaleShift};
use tch::{Device, Kind, Tensor};

use crate::ffi::{self, TorchThreads, values, values_mut};
use crate::format::is_channels_last;

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

/// Sets the kernels of a program: `ours` at the level of the environment, or else the processor's best, with
/// `weight_memory` bytes for prepared weights; or libtorch's.
///
/// # Errors
/// As [`kernel_level_of_environment`].
pub fn configure(ours: bool, weight_memory: usize) -> Result<(), String> {
    let level = kernel_level_of_environment()?;
    if !ours {
        set_kernels(None);
    } else if level.is_some() {
        set_kernels(level);
    }
    set_prepared_weight_memory(weight_memory);
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

/// The level at which our kernels compute with `inputs`, if they can: f32 on the CPU, no gradient recorded.
fn level_for<const N: usize>(inputs: [&Tensor; N]) -> Option<Level> {
    let level = kernels()?;
    let fits = |x: &&Tensor| x.kind() == Kind::Float && x.device() == Device::Cpu;
    (inputs.iter().all(fits) && !is_training()).then_some(level)
}

/// Returns whether gradients are recorded, now or when the same values are computed again.
fn is_training() -> bool {
    ffi::grad_enabled() || REPEATED.get()
}

/// Counts `body` as an operation if this thread's operations are counted; `cost` returns its multiplications and additions
/// and its bytes.
fn counted<T>(name: &'static CStr, cost: impl FnOnce() -> [usize; 2], body: impl FnOnce() -> T) -> T {
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
fn empty_image([batch, channels, height, width]: [i64; 4]) -> Tensor {
    Tensor::empty([batch, height, width, channels], (Kind::Float, Device::Cpu)).permute([0, 3, 1, 2])
}

/// Memory that the prepared weights of convolutions may take, and that they take, in bytes.
static MEMORY: [AtomicUsize; 2] = [AtomicUsize::new(DEFAULT_WEIGHT_MEMORY), AtomicUsize::new(0)];

/// The default of [`set_prepared_weight_memory`]: enough for the large maps of Stable Diffusion's U-Net and decoder.
pub const DEFAULT_WEIGHT_MEMORY: usize = 3_000_000_000;

/// Sets how much memory the prepared weights of all convolutions may take, in bytes. A convolution beyond it, and all with
/// 0, is libtorch's.
pub fn set_prepared_weight_memory(bytes: usize) {
    MEMORY[0].store(bytes, Ordering::Relaxed);
}

/// Weights of a 3x3 convolution, prepared for our kernels at the first use and again after a change.
#[derive(Debug, Default)]
pub struct PreparedConv3x3(Mutex<Option<Prepared>>);

#[derive(Debug)]
struct Prepared {
    weights: std::sync::Arc<Conv3x3Weights>,
    /// Pointer and version of the tensor.
    of: (usize, i64),
    bytes: usize,
}

impl Drop for Prepared {
    fn drop(&mut self) {
        MEMORY[1].fetch_sub(self.bytes, Ordering::Relaxed);
    }
}

/// The operations before and after the sums of a fused convolution.
#[derive(Debug, Clone, Copy, Default)]
pub struct FusedConv<'a> {
    /// Scale and shift `[B, C]` of a norm, which is followed by SiLU, before the convolution.
    pub norm: Option<&'a ScaleShift>,
    /// `[B, K]`, added to each image.
    pub image_bias: Option<&'a Tensor>,
    /// `[B, K, H, W]`, added to the result.
    pub residual: Option<&'a Tensor>,
}

impl PreparedConv3x3 {
    /// Pixels of an image from which on our convolution is the faster one: below, a call reads more weights than it saves
    /// sums. The limit is that of one image, so that an image has the same bytes alone and in a batch.
    const PIXELS: i64 = 1024;
    /// Channels, in and out, from which on it is.
    const CHANNELS: i64 = 32;

    /// Convolves a channels_last `x` `[B, C, H, W]` with `weight` `[K, C, 3, 3]`, stride 1, padding 1. None where
    /// libtorch's convolution is the one to use: another dtype, device or format, a small map, no memory left, or
    /// gradients.
    pub fn forward(
        &self,
        x: &Tensor,
        weight: &Tensor,
        bias: Option<&Tensor>,
        fused: FusedConv<'_>,
    ) -> Option<Tensor> {
        let level = self.level(x, weight)?;
        let (batch, channels, height, width) = x.size4().ok()?;
        let out = weight.size()[0];
        // Other sizes are broadcast by libtorch.
        let fits = |other: Option<&Tensor>, size: &[i64]| {
            other.is_none_or(|other| level_for([other]).is_some() && other.size() == size)
        };
        if !(fits(bias, &[out])
            && fits(fused.image_bias, &[batch, out])
            && fits(fused.residual, &[batch, out, height, width]))
        {
            return None;
        }
        let weights = self.prepared(weight, level)?;
        let residual = fused.residual.map(crate::to_channels_last);
        let image_bias = fused.image_bias.map(Tensor::contiguous);
        let mut y = empty_image([batch, out, height, width]);
        let size = ImageSize { batch: batch as usize, height: height as usize, width: width as usize };
        let cost = || {
            let (pixels, channels, out) = (size.pixels(), channels as usize, out as usize);
            let residual = if residual.is_some() { out } else { 0 };
            [2 * 9 * pixels * channels * out, 4 * (pixels * (channels + out + residual) + 9 * channels * out)]
        };
        counted(c"ldm::conv3x3", cost, || {
            let prologue = fused.norm.map(|norm| Conv3x3Prologue { scale: &norm.scale, shift: &norm.shift });
            let epilogue = Conv3x3Epilogue {
                bias: bias.map(values),
                image_bias: image_bias.as_ref().map(values),
                residual: residual.as_ref().map(values),
            };
            let output = values_mut(&mut y);
            ldm_kernels::conv3x3(&TorchThreads, &weights, size, values(x), prologue, epilogue, output);
        });
        Some(y)
    }

    /// The level at which [`PreparedConv3x3::forward`] would compute; a gradient releases the prepared weights, since
    /// they change with each step.
    fn level(&self, x: &Tensor, weight: &Tensor) -> Option<Level> {
        if is_training() {
            self.release();
            return None;
        }
        let level = level_for([x, weight])?;
        let (_, channels, height, width) = x.size4().ok()?;
        let large = height * width >= Self::PIXELS
            && channels >= Self::CHANNELS
            && weight.size()[0] >= Self::CHANNELS
            && level > Level::Scalar;
        (large && is_channels_last(x)).then_some(level)
    }

    /// Returns whether [`PreparedConv3x3::forward`] would take `x`.
    pub fn takes(&self, x: &Tensor, weight: &Tensor) -> bool {
        self.level(x, weight).is_some_and(|level| self.prepared(weight, level).is_some())
    }

    fn release(&self) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = None;
    }

    fn prepared(&self, weight: &Tensor, level: Level) -> Option<std::sync::Arc<Conv3x3Weights>> {
        let of = (weight.data_ptr() as usize, ffi::version(weight)?);
        let mut slot = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(prepared) =
            slot.as_ref().filter(|prepared| prepared.of == of && prepared.weights.level() == level)
        {
            return Some(prepared.weights.clone());
        }
        *slot = None;
        let size = weight.size();
        let channels = [size[0] as usize, size[1] as usize];
        let bytes = Conv3x3Weights::bytes(level, channels);
        let limit = MEMORY[0].load(Ordering::Relaxed);
        let taken = MEMORY[1].fetch_add(bytes, Ordering::Relaxed) + bytes;
        if taken > limit {
            MEMORY[1].fetch_sub(bytes, Ordering::Relaxed);
            return None;
        }
        let dense = weight.contiguous();
        let weights =
            std::sync::Arc::new(Conv3x3Weights::new(&TorchThreads, level, channels, values(&dense)));
        *slot = Some(Prepared { weights: weights.clone(), of, bytes });
        Some(weights)
    }
}

/// Group normalization of a channels_last `x` `[B, C, H, W]` by `weight` and `bias` `[C]`, with SiLU if `silu`. None where
/// libtorch's is the one to use.
pub fn group_norm(x: &Tensor, parameters: GroupNormTensors<'_>, silu: bool) -> Option<Tensor> {
    let level = norm_level(x, parameters)?;
    let (batch, channels, height, width) = x.size4().ok()?;
    let mut y = empty_image([batch, channels, height, width]);
    counted(
        c"ldm::group_norm",
        || [0, 8 * x.numel()],
        || {
            let output = values_mut(&mut y);
            ldm_kernels::group_norm(
                &TorchThreads,
                level,
                batch as usize,
                values(x),
                parameters.values(),
                silu,
                output,
            );
        },
    );
    Some(y)
}

/// Scale and shift of [`group_norm`], for [`FusedConv::norm`].
pub fn group_norm_scale_shift(x: &Tensor, parameters: GroupNormTensors<'_>) -> Option<ScaleShift> {
    let level = norm_level(x, parameters)?;
    let batch = x.size()[0] as usize;
    Some(counted(
        c"ldm::group_norm",
        || [0, 4 * x.numel()],
        || ldm_kernels::group_norm_scale_shift(&TorchThreads, level, batch, values(x), parameters.values()),
    ))
}

/// The parameters of a group normalization.
#[derive(Debug, Clone, Copy)]
pub struct GroupNormTensors<'a> {
    /// Groups, which divide the channels.
    pub groups: i64,
    /// `[C]`.
    pub weight: &'a Tensor,
    /// `[C]`.
    pub bias: &'a Tensor,
    /// Added to the variance.
    pub eps: f64,
}

impl<'a> GroupNormTensors<'a> {
    fn values(self) -> GroupNormParameters<'a> {
        let (weight, bias) = (values(self.weight), values(self.bias));
        GroupNormParameters { groups: self.groups as usize, weight, bias, eps: self.eps }
    }
}

fn norm_level(x: &Tensor, parameters: GroupNormTensors<'_>) -> Option<Level> {
    let level = level_for([x, parameters.weight, parameters.bias])?;
    (x.dim() == 4 && x.numel() > 0 && is_channels_last(x)).then_some(level)
}

/// softmax(q kᵀ / √d) v over `heads`, for contiguous `q` `[B, L, heads·d]`, `k` and `v` `[B, S, heads·d]`. None where
/// libtorch's is the one to use.
pub fn attention([q, k, v]: [&Tensor; 3], heads: i64) -> Option<Tensor> {
    let level = level_for([q, k, v])?;
    let (batch, queries, width) = q.size3().ok()?;
    let contiguous = [q, k, v].iter().all(|tokens| tokens.is_contiguous());
    // Other batches are broadcast by libtorch.
    if !contiguous || k.size() != v.size() || k.size3().ok()?.0 != batch {
        return None;
    }
    let size = AttentionSize {
        batch: batch as usize,
        heads: heads as usize,
        queries: queries as usize,
        keys: k.size()[1] as usize,
        head_size: (width / heads) as usize,
    };
    let mut y = Tensor::empty([batch, queries, width], (Kind::Float, Device::Cpu));
    let cost = || [4 * q.numel() * size.keys, 8 * (q.numel() + k.numel())];
    counted(c"ldm::attention", cost, || {
        let inputs = [values(q), values(k), values(v)];
        ldm_kernels::attention(&TorchThreads, level, size, inputs, values_mut(&mut y));
    });
    Some(y)
}

/// x·gelu(gate) for a contiguous `[…, 2·width]` of x and gate. None where libtorch's is the one to use.
pub fn geglu(x: &Tensor) -> Option<Tensor> {
    let level = level_for([x])?;
    let mut size = x.size();
    let width = *size.last()? / 2;
    if !x.is_contiguous() || width == 0 {
        return None;
    }
    *size.last_mut()? = width;
    let mut y = Tensor::empty(&size, (Kind::Float, Device::Cpu));
    counted(
        c"ldm::geglu",
        || [0, 6 * x.numel()],
        || {
            ldm_kernels::geglu(&TorchThreads, level, width as usize, values(x), values_mut(&mut y));
        },
    );
    Some(y)
}
