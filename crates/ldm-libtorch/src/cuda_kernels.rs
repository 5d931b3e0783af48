//! Fused kernels for channels_last maps on CUDA, with gradients: group normalization with what is added before and after it,
//! sums after a convolution, and GEGLU.
//!
//! Every function returns none for a device, dtype or memory format that it does not serve; the caller then takes libtorch's
//! operations. Before a GPU's first use the kernels are compared with libtorch on it ([`cuda_kernels_status`]).

mod compiled;
pub(crate) mod geometry;
mod self_check;

use std::cell::Cell;
use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{LazyLock, Mutex, PoisonError};

use tch::{Device, Kind, Tensor};

use crate::ffi::{self, NormPlan};
use crate::format::is_channels_last;
use crate::kernels::{GroupNormTensors, counted};

pub use geometry::GpuLimits;
use geometry::MapLayout;

/// Inputs of a group norm next to its own parameters. Absent ones cost nothing.
#[derive(Debug, Clone, Copy, Default)]
pub struct NormExtras<'a> {
    /// `[C]`, added to each pixel before the norm: the bias of a convolution.
    pub channel_shift: Option<&'a Tensor>,
    /// `[B, C]`, added to each image before the norm: a time embedding.
    pub image_shift: Option<&'a Tensor>,
    /// `[B, 2C]`, scale and shift: the normed map is multiplied by 1 + scale, and shift is added.
    pub scale_shift: Option<&'a Tensor>,
    /// Applies x·sigmoid(x) at the end.
    pub silu: bool,
}

/// Sums after a convolution without bias.
#[derive(Debug, Clone, Copy, Default)]
pub struct BiasExtras<'a> {
    /// `[C]`.
    pub channel_bias: Option<&'a Tensor>,
    /// `[B, C]`.
    pub image_bias: Option<&'a Tensor>,
    /// `[B, C, h, w]`.
    pub residual: Option<&'a Tensor>,
}

static SELECTED: AtomicBool = AtomicBool::new(true);

thread_local! {
    /// Limits of the GPU that this thread emulates.
    static EMULATED: Cell<Option<GpuLimits>> = const { Cell::new(None) };
}

/// The state of each GPU's kernels.
static READY: LazyLock<Mutex<HashMap<usize, Result<GpuLimits, String>>>> = LazyLock::new(Mutex::default);

/// Selects these kernels, as by default, or libtorch's.
pub fn set_cuda_kernels(ours: bool) {
    SELECTED.store(ours, Ordering::Relaxed);
}

/// Returns whether these kernels are used on `device`, a GPU, or the reason why they are not. The first call compares each
/// kernel with libtorch.
///
/// # Errors
/// A sentence: no driver, a driver that refuses the code, or a kernel whose results are not libtorch's.
pub fn cuda_kernels_status(device: Device) -> Result<(), String> {
    let Device::Cuda(index) = device else { return Err(format!("{device:?}: expected a CUDA device")) };
    with_state(index, |state| state.clone().map(drop))
}

fn with_state<T>(index: usize, read: impl FnOnce(&Result<GpuLimits, String>) -> T) -> T {
    let mut all = READY.lock().unwrap_or_else(PoisonError::into_inner);
    read(all.entry(index).or_insert_with(|| prepare(index)))
}

fn prepare(index: usize) -> Result<GpuLimits, String> {
    if index >= crate::cuda_device_count() {
        return Err(format!("expected a CUDA device {index}, got {} devices", crate::cuda_device_count()));
    }
    compiled::add()?;
    // A thread of its own: its gradients are recorded and its autocast is off, whatever those of this thread are.
    let check = std::thread::spawn(move || {
        let device = Device::Cuda(index);
        drop(Tensor::zeros([1], (Kind::Float, device))); // libtorch prepares the device
        let limits = ffi::gpu_limits(index).map_err(|error| error.to_string())?;
        self_check::self_check(device, limits).map(|()| limits)
    });
    check.join().unwrap_or_else(|_| Err("the comparison with libtorch failed".into()))
}

/// Runs `body` with the kernels emulated on the CPU for tensors there: a test of their arithmetic. `order` permutes the threads
/// and blocks, where 0 is ascending. None in a release build, which has no emulator.
pub fn with_emulated_gpu<T>(limits: GpuLimits, order: u64, body: impl FnOnce() -> T) -> Option<T> {
    struct EmulatedBefore(Option<GpuLimits>);
    impl Drop for EmulatedBefore {
        fn drop(&mut self) {
            EMULATED.set(self.0);
            ffi::set_emulator_order(0);
        }
    }
    if !ffi::has_emulator() {
        return None;
    }
    let _before = EmulatedBefore(EMULATED.replace(Some(limits)));
    ffi::set_emulator_order(order);
    Some(body())
}

/// Returns whether kernels of this module may serve `x`, a map `[B, C, h, w]`: a GPU with working kernels, f32, bf16 or f16, in
/// channels_last.
pub fn serves(x: &Tensor) -> bool {
    limits_for(x).is_some() && is_map(x)
}

fn is_map(x: &Tensor) -> bool {
    x.dim() == 4 && x.numel() > 0 && is_channels_last(x)
}

/// The limits of the GPU of `x`, if its dtype is one of the kernels.
fn limits_for(x: &Tensor) -> Option<GpuLimits> {
    let limits = match x.device() {
        Device::Cuda(index) if SELECTED.load(Ordering::Relaxed) => {
            with_state(index, |state| state.as_ref().ok().copied())?
        }
        Device::Cpu => EMULATED.get()?,
        _ => return None,
    };
    is_number(x).then_some(limits)
}

fn is_number(x: &Tensor) -> bool {
    matches!(x.kind(), Kind::Float | Kind::BFloat16 | Kind::Half)
}

/// Group normalization of a channels_last `x` `[B, C, h, w]`:
/// n = norm(x + shifts)·(1 + scale) + shift, then n or n·sigmoid(n), in the dtype of `x`.
///
/// Wu & He 2018. Under autocast, where libtorch's norm is f32, the result keeps the dtype of `x`, and sums are f32 in any case.
pub fn group_norm(x: &Tensor, of: GroupNormTensors<'_>, extras: NormExtras<'_>) -> Option<Tensor> {
    group_norm_on(limits_for(x)?, x, of, extras)
}

fn group_norm_on(
    limits: GpuLimits,
    x: &Tensor,
    of: GroupNormTensors<'_>,
    extras: NormExtras<'_>,
) -> Option<Tensor> {
    let (batch, channels, ..) = x.size4().ok().filter(|_| is_map(x))?;
    let GroupNormTensors { groups, weight, bias, eps } = of;
    if groups <= 0 || channels % groups != 0 {
        return None;
    }
    let small = [
        (Some(weight), vec![channels]),
        (Some(bias), vec![channels]),
        (extras.channel_shift, vec![channels]),
        (extras.image_shift, vec![batch, channels]),
        (extras.scale_shift, vec![batch, 2 * channels]),
    ];
    if !small.iter().all(|(of, size)| is_small(x, *of, size)) {
        return None;
    }
    let small = small.map(|(of, _)| of.map(Tensor::contiguous));
    let layout = layout_of(x, &[x])?;
    let slab = layout.slab(groups, limits);
    let plan = NormPlan {
        groups,
        eps,
        silu: extras.silu.into(),
        slab: slab.is_some().into(),
        forward: slab.or_else(|| layout.split(groups, 2, limits))?,
        // The gradient of the output is copied where it is not aligned.
        backward: layout.split(groups, 3, limits)?,
    };
    let [weight, bias, channel_shift, image_shift, scale_shift] = small.each_ref().map(Option::as_ref);
    let tensors = [Some(x), weight, bias, channel_shift, image_shift, scale_shift];
    Some(counted(
        c"ldm::group_norm",
        || [0, 2 * x.kind().elt_size_in_bytes() * x.numel()],
        || ffi::fused_group_norm(&plan, tensors).expect("a launch of checked sizes"),
    ))
}

/// The sum of a channels_last `x` `[B, C, h, w]` and what is given.
pub fn bias_add(x: &Tensor, extras: BiasExtras<'_>) -> Option<Tensor> {
    bias_add_on(limits_for(x)?, x, extras)
}

fn bias_add_on(limits: GpuLimits, x: &Tensor, extras: BiasExtras<'_>) -> Option<Tensor> {
    let (batch, channels, ..) = x.size4().ok().filter(|_| is_map(x))?;
    let small = [(extras.channel_bias, vec![channels]), (extras.image_bias, vec![batch, channels])];
    if !small.iter().all(|(of, size)| is_small(x, *of, size)) {
        return None;
    }
    let [channel_bias, image_bias] = small.map(|(of, _)| of.map(Tensor::contiguous));
    let fits = |residual: &&Tensor| {
        residual.kind() == x.kind()
            && residual.device() == x.device()
            && residual.size() == x.size()
            && is_channels_last(residual)
    };
    if !extras.residual.as_ref().is_none_or(fits) {
        return None;
    }
    let tiling = layout_of(x, &[x, extras.residual.unwrap_or(x)])?.plain(limits)?;
    let maps = if extras.residual.is_some() { 3 } else { 2 };
    Some(counted(
        c"ldm::bias_add",
        || [0, maps * x.kind().elt_size_in_bytes() * x.numel()],
        || {
            let added = [channel_bias.as_ref(), image_bias.as_ref(), extras.residual];
            ffi::fused_bias_add(&tiling, x, added).expect("a launch of checked sizes")
        },
    ))
}

/// value·gelu(gate) of contiguous rows `[…, 2C]` of value and gate; returns `[…, C]`. The exact GELU (Shazeer 2020).
pub fn geglu(x: &Tensor) -> Option<Tensor> {
    geglu_on(limits_for(x)?, x)
}

fn geglu_on(limits: GpuLimits, x: &Tensor) -> Option<Tensor> {
    let columns = *x.size().last()?;
    if x.numel() == 0 || columns % 2 != 0 || !x.is_contiguous() {
        return None;
    }
    let element_bytes = x.kind().elt_size_in_bytes() as i64;
    let pixels = x.numel() as i64 / columns;
    let layout =
        MapLayout { batch: 1, pixels, channels: columns / 2, element_bytes, aligned: are_aligned(&[x]) };
    let tiling = layout.plain(limits)?;
    Some(counted(
        c"ldm::geglu",
        || [0, x.kind().elt_size_in_bytes() * x.numel() * 3 / 2],
        || ffi::fused_geglu(&tiling, x).expect("a launch of checked sizes"),
    ))
}

/// Returns whether the kernels read `of` as a small input of `x`, or there is none.
fn is_small(x: &Tensor, of: Option<&Tensor>, size: &[i64]) -> bool {
    of.is_none_or(|of| of.size() == size && of.device() == x.device() && is_number(of))
}

fn layout_of(x: &Tensor, maps: &[&Tensor]) -> Option<MapLayout> {
    let (batch, channels, height, width) = x.size4().ok()?;
    let element_bytes = x.kind().elt_size_in_bytes() as i64;
    Some(MapLayout { batch, pixels: height * width, channels, element_bytes, aligned: are_aligned(maps) })
}

fn are_aligned(tensors: &[&Tensor]) -> bool {
    tensors.iter().all(|tensor| (tensor.data_ptr() as usize).is_multiple_of(16))
}
