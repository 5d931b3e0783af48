//! Group normalization over channels_last images, with or without SiLU.

use crate::Level;
use crate::buffer::Output;
use crate::element::Element;
use crate::simd::{Simd, SimdKernel, run};
use crate::threads::Threads;

/// The parameters of a group normalization.
#[derive(Debug, Clone, Copy)]
pub struct GroupNormParameters<'a> {
    /// Groups, which divide the channels.
    pub groups: usize,
    /// `[C]`.
    pub weight: &'a [f32],
    /// `[C]`.
    pub bias: &'a [f32],
    /// Added to the variance.
    pub eps: f64,
}

/// A group normalization of given images as `x·scale + shift`, both `[B, C]`.
#[derive(Debug, Clone, PartialEq)]
pub struct ScaleShift {
    /// `[B, C]`.
    pub scale: Vec<f32>,
    /// `[B, C]`.
    pub shift: Vec<f32>,
}

/// Pixels that are summed in f32 before the sums go on in f64.
const PIXELS: usize = 64;

/// Computes mean and variance of `input` `[B, pixels, C]` in each group, in one pass (Wu & He 2018, eqs. 1–2).
///
/// Values are summed relative to the first pixel of every 64, so that a mean far from zero costs no accuracy.
///
/// # Panics
/// When a slice does not have the size that the others require, or `level` is not available.
pub fn group_norm_scale_shift(
    threads: &dyn Threads,
    level: Level,
    batch: usize,
    input: &[f32],
    parameters: GroupNormParameters<'_>,
) -> ScaleShift {
    scale_shift(threads, level, batch, input, parameters)
}

/// [`group_norm_scale_shift`] of bf16 numbers, given by their bits.
///
/// # Panics
/// As [`group_norm_scale_shift`].
pub fn group_norm_scale_shift_bf16(
    threads: &dyn Threads,
    level: Level,
    batch: usize,
    input: &[u16],
    parameters: GroupNormParameters<'_>,
) -> ScaleShift {
    scale_shift(threads, level, batch, input, parameters)
}

fn scale_shift<T: Element>(
    threads: &dyn Threads,
    level: Level,
    batch: usize,
    input: &[T],
    parameters: GroupNormParameters<'_>,
) -> ScaleShift {
    assert!(level.is_available(), "{level} is not available on this processor");
    let GroupNormParameters { groups, weight, bias, eps } = parameters;
    let channels = weight.len();
    assert_eq!(bias.len(), channels, "bias [C]");
    assert!(groups > 0 && channels.is_multiple_of(groups), "{groups} groups of {channels} channels");
    let mut result = ScaleShift { scale: vec![0.; batch * channels], shift: vec![0.; batch * channels] };
    if batch * channels == 0 {
        return result;
    }
    let pixels = input.len() / (batch * channels);
    assert_eq!(input.len(), batch * pixels * channels, "input [B, pixels, C]");
    // The same parts for any number of threads: the sums are the same to the bit.
    let parts = pixels.div_ceil(PART_PIXELS).max(1);
    let mut sums = vec![[0_f64; 2]; batch * parts * channels];
    let kernel = Moments { input, channels, pixels, parts, sums: SharedSums(sums.as_mut_ptr()) };
    threads.run(batch * parts, &|task| {
        // SAFETY: the level is available (above), and the task runs once.
        unsafe { run(level, &kernel, task) }
    });
    let group_size = channels / groups;
    for group in 0..batch * groups {
        let (image, first) = (group / groups, group % groups * group_size);
        let mut all = [0_f64; 2]; // Σx, Σx²
        for part in 0..parts {
            for [sum, squares] in &sums[(image * parts + part) * channels + first..][..group_size] {
                all[0] += sum;
                all[1] += squares;
            }
        }
        let count = (pixels * group_size) as f64;
        let mean = all[0] / count;
        let variance = all[1] / count - mean * mean;
        let variance = if variance < 0. { 0. } else { variance }; // by rounding; NaN stays
        for channel in first..first + group_size {
            let scale = f64::from(weight[channel]) / (variance + eps).sqrt();
            result.scale[image * channels + channel] = scale as f32;
            result.shift[image * channels + channel] = (f64::from(bias[channel]) - mean * scale) as f32;
        }
    }
    result
}

/// Pixels of a task.
const PART_PIXELS: usize = 512;

struct SharedSums(*mut [f64; 2]);

// SAFETY: each task writes its own part.
unsafe impl Sync for SharedSums {}

/// Σx and Σx² of each channel in parts of the images, in f64.
struct Moments<'a, T> {
    input: &'a [T],
    channels: usize,
    pixels: usize,
    parts: usize,
    /// `[B, parts, C]`.
    sums: SharedSums,
}

impl<T: Element> SimdKernel for Moments<'_, T> {
    #[inline(always)]
    unsafe fn task<S: Simd>(&self, task: usize) {
        let (image, part) = (task / self.parts, task % self.parts);
        let end = self.pixels.min((part + 1) * PART_PIXELS);
        let mut start = part * PART_PIXELS;
        while start < end {
            let count = PIXELS.min(end - start);
            let from = self.input.as_ptr().wrapping_add((image * self.pixels + start) * self.channels);
            // SAFETY: `count` pixels from `start` on; the sums of this task.
            unsafe {
                let sums = self.sums.0.add(task * self.channels);
                moments::<S, T>(from, count, self.channels, sums);
            }
            start += count;
        }
    }
}

/// Adds the moments of `pixels` pixels to `sums`.
#[inline(always)]
unsafe fn moments<S: Simd, T: Element>(from: *const T, pixels: usize, channels: usize, sums: *mut [f64; 2]) {
    let mut channel = 0;
    while channel < channels {
        let lanes = S::LANES.min(channels - channel);
        // SAFETY: `lanes` channels of each pixel.
        unsafe {
            let from = from.add(channel);
            let first = T::load_up_to::<S>(from, lanes);
            let (mut sum, mut squares) = (S::splat(0.), S::splat(0.));
            for pixel in 1..pixels {
                let value = S::sub(T::load_up_to::<S>(from.add(pixel * channels), lanes), first);
                sum = S::add(sum, value);
                squares = S::mul_add(value, value, squares);
            }
            let [mut firsts, mut totals, mut powers] = [[0_f32; crate::simd::MAX_LANES]; 3];
            S::store(firsts.as_mut_ptr(), first);
            S::store(totals.as_mut_ptr(), sum);
            S::store(powers.as_mut_ptr(), squares);
            let lists = firsts.iter().zip(&totals).zip(&powers).take(lanes);
            for (lane, ((&first, &sum), &squares)) in lists.enumerate() {
                let [first, sum, squares] = [f64::from(first), f64::from(sum), f64::from(squares)];
                let count = pixels as f64;
                let to = &mut *sums.add(channel + lane);
                to[0] += sum + count * first;
                to[1] += squares + 2. * first * sum + count * first * first;
            }
        }
        channel += S::LANES;
    }
}

/// Normalizes `input` `[B, pixels, C]` into `output`; with `silu`, x·sigmoid(x) of the result.
///
/// # Panics
/// As [`group_norm_scale_shift`].
pub fn group_norm(
    threads: &dyn Threads,
    level: Level,
    batch: usize,
    input: &[f32],
    parameters: GroupNormParameters<'_>,
    silu: bool,
    output: &mut [f32],
) {
    normalize(threads, level, batch, input, parameters, silu, output);
}

/// [`group_norm`] of bf16 numbers, given by their bits; the result is rounded.
///
/// # Panics
/// As [`group_norm_scale_shift`].
pub fn group_norm_bf16(
    threads: &dyn Threads,
    level: Level,
    batch: usize,
    input: &[u16],
    parameters: GroupNormParameters<'_>,
    silu: bool,
    output: &mut [u16],
) {
    normalize(threads, level, batch, input, parameters, silu, output);
}

fn normalize<T: Element>(
    threads: &dyn Threads,
    level: Level,
    batch: usize,
    input: &[T],
    parameters: GroupNormParameters<'_>,
    silu: bool,
    output: &mut [T],
) {
    assert_eq!(output.len(), input.len(), "output [B, pixels, C]");
    let norm = scale_shift(threads, level, batch, input, parameters);
    let channels = parameters.weight.len();
    if input.is_empty() {
        return;
    }
    let pixels = input.len() / (batch * channels);
    let parts = pixels.div_ceil(PART_PIXELS);
    let kernel = Apply { input, norm: &norm, channels, pixels, parts, silu, output: Output::new(output) };
    threads.run(batch * parts, &|task| {
        // SAFETY: the level is available, and the task runs once.
        unsafe { run(level, &kernel, task) }
    });
}

struct Apply<'a, T> {
    input: &'a [T],
    norm: &'a ScaleShift,
    channels: usize,
    pixels: usize,
    parts: usize,
    silu: bool,
    /// A task writes its pixels.
    output: Output<T>,
}

impl<T: Element> SimdKernel for Apply<'_, T> {
    #[inline(always)]
    unsafe fn task<S: Simd>(&self, task: usize) {
        let (image, part) = (task / self.parts, task % self.parts);
        let end = self.pixels.min((part + 1) * PART_PIXELS);
        let (scale, shift) = (self.norm.scale.as_ptr(), self.norm.shift.as_ptr());
        for pixel in part * PART_PIXELS..end {
            let at = (image * self.pixels + pixel) * self.channels;
            let mut channel = 0;
            while channel < self.channels {
                let lanes = self.channels - channel;
                // SAFETY: `lanes` channels of a pixel, and of the image's scale and shift.
                unsafe {
                    let norm = image * self.channels + channel;
                    let (scale, shift) =
                        (S::load_up_to(scale.add(norm), lanes), S::load_up_to(shift.add(norm), lanes));
                    let x = T::load_up_to::<S>(self.input.as_ptr().add(at + channel), lanes);
                    let mut y = S::mul_add(x, scale, shift);
                    if self.silu {
                        y = S::silu(y);
                    }
                    T::store_up_to::<S>(self.output.at(at + channel), y, lanes);
                }
                channel += S::LANES;
            }
        }
    }
}
