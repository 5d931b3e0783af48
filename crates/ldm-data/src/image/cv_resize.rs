//! Resizing as OpenCV's `cv2.resize`, for 8-bit and float images of three channels.
//!
//! Weights are 32-bit floats by OpenCV's own formulas; 8-bit images are summed with 11-bit weights, as there. Not
//! antialiased, except for [`OpenCv::Area`]. OpenCV `modules/imgproc/src/resize.cpp`, 4.x. 8-bit results are
//! bit for bit those of `opencv-python-headless` 4.11 (`tests/it/cv_resize.rs`).

use std::f64::consts::{FRAC_1_SQRT_2, PI};

use image::RgbImage;

use crate::image::float_image::FloatImage;
use crate::image::interpolation::OpenCv;

/// Bits of a weight for 8-bit images.
const BITS: u32 = 11;

/// The input pixels of each output pixel along an axis, `count` each, and their weights.
struct AxisTaps {
    count: usize,
    from: Vec<usize>,
    weights: Vec<f32>,
}

impl AxisTaps {
    fn of(&self, pixel: usize) -> impl Iterator<Item = (usize, f32)> {
        let range = pixel * self.count..(pixel + 1) * self.count;
        self.from[range.clone()].iter().copied().zip(self.weights[range].iter().copied())
    }
}

/// Resizes an 8-bit image.
pub(crate) fn image(image: &RgbImage, width: u32, height: u32, kind: OpenCv) -> RgbImage {
    let from = [image.width() as usize, image.height() as usize];
    let to = [width as usize, height as usize];
    let source = image.as_raw();
    let raw = if from == to {
        source.clone()
    } else {
        match method(from, to, kind) {
            Method::Nearest => gather(source, from, to),
            Method::Mean([2, 2]) => quarter(source, from, to),
            Method::Mean(scale) => {
                // OpenCV sums integers here; 32-bit floats hold them exactly up to 65536 pixels.
                let sums = sums(&floats(source), from, to, scale);
                let share = 1. / (scale[0] * scale[1]) as f32;
                sums.into_iter().map(|sum| round(sum * share)).collect()
            }
            Method::Area => {
                let axes = [area_taps(from[0], to[0]), area_taps(from[1], to[1])];
                weighted(&floats(source), from[0], axes).into_iter().map(round).collect()
            }
            // OpenCV's published builds for x86 use floats here (Intel's library), its own code integers.
            Method::Taps([columns, rows]) if kind == OpenCv::Cubic => {
                along(&floats(source), from[0], &columns, &rows).into_iter().map(round).collect()
            }
            Method::Taps(axes) => fixed(source, from[0], &axes),
        }
    };
    RgbImage::from_raw(width, height, raw).expect("three bytes a pixel")
}

/// Resizes a float image.
pub(crate) fn float_image(image: &FloatImage, width: usize, height: usize, kind: OpenCv) -> FloatImage {
    let (from, to) = ([image.width, image.height], [width, height]);
    let source = &image.values;
    let values = if from == to {
        source.clone()
    } else {
        match method(from, to, kind) {
            Method::Nearest => gather(source, from, to),
            Method::Mean(scale) => {
                let share = 1. / (scale[0] * scale[1]) as f32;
                sums(source, from, to, scale).into_iter().map(|sum| sum * share).collect()
            }
            Method::Area => {
                let axes = [area_taps(from[0], to[0]), area_taps(from[1], to[1])];
                weighted(source, from[0], axes)
            }
            Method::Taps([columns, rows]) => along(source, from[0], &columns, &rows),
        }
    };
    FloatImage { width, height, values }
}

/// The nearest pixels by OpenCV's rule: `floor(k * from / to)`.
pub(crate) fn nearest(from: usize, to: usize) -> impl Iterator<Item = usize> {
    let scale = 1. / (to as f64 / from as f64);
    (0..to).map(move |k| ((k as f64 * scale).floor() as usize).min(from - 1))
}

/// OpenCV's method for an interpolation and two sizes.
enum Method {
    Nearest,
    /// Mean of whole blocks, of this width and height in pixels.
    Mean([usize; 2]),
    /// Mean over parts of pixels.
    Area,
    /// Weights of columns and rows.
    Taps([AxisTaps; 2]),
}

fn method(from: [usize; 2], to: [usize; 2], kind: OpenCv) -> Method {
    let scale = [0, 1].map(|k| 1. / (to[k] as f64 / from[k] as f64));
    let whole = scale.map(|scale| scale.round_ties_even() as usize);
    let is_whole = (0..2).all(|k| (scale[k] - whole[k] as f64).abs() < f64::EPSILON);
    let pair = |make: fn(usize, usize) -> AxisTaps| [make(from[0], to[0]), make(from[1], to[1])];
    match kind {
        OpenCv::Nearest => Method::Nearest,
        OpenCv::Linear if is_whole && whole == [2, 2] => Method::Mean(whole),
        OpenCv::Linear => Method::Taps(pair(linear_taps)),
        OpenCv::Cubic => Method::Taps(pair(cubic_taps)),
        OpenCv::Lanczos4 => Method::Taps(pair(lanczos_taps)),
        OpenCv::Area if scale[0] >= 1. && scale[1] >= 1. => {
            if is_whole {
                Method::Mean(whole)
            } else {
                Method::Area
            }
        }
        OpenCv::Area => Method::Taps(pair(growing_area_taps)),
    }
}

// ---- Weights -------------------------------------------------------------------------------------------------------

/// Position of an output pixel among the input pixels: the one before it, and the fraction past that.
fn place(k: usize, from: usize, to: usize) -> (isize, f32) {
    let scale = 1. / (to as f64 / from as f64);
    let at = ((k as f64 + 0.5) * scale - 0.5) as f32;
    (at.floor() as isize, at - at.floor())
}

fn taps<const N: usize>(
    from: usize,
    to: usize,
    first: isize,
    weights: impl Fn(usize) -> (isize, [f32; N]),
) -> AxisTaps {
    let mut taps =
        AxisTaps { count: N, from: Vec::with_capacity(N * to), weights: Vec::with_capacity(N * to) };
    for k in 0..to {
        let (before, weights) = weights(k);
        let clamped = |tap: isize| (before + first + tap).clamp(0, from as isize - 1) as usize;
        taps.from.extend((0..N as isize).map(clamped));
        taps.weights.extend(weights);
    }
    taps
}

fn linear_taps(from: usize, to: usize) -> AxisTaps {
    taps(from, to, 0, |k| {
        let (before, past) = place(k, from, to);
        (before, [1. - past, past])
    })
}

/// `INTER_AREA` for enlargement: like linear, but constant within a pixel.
fn growing_area_taps(from: usize, to: usize) -> AxisTaps {
    let inverse = to as f64 / from as f64;
    let scale = 1. / inverse;
    taps(from, to, 0, |k| {
        let before = (k as f64 * scale).floor();
        let past = ((k as f64 + 1.) - (before + 1.) * inverse) as f32;
        let past = if past <= 0. { 0. } else { past - past.floor() };
        (before as isize, [1. - past, past])
    })
}

fn cubic_taps(from: usize, to: usize) -> AxisTaps {
    const A: f32 = -0.75;
    taps(from, to, -1, |k| {
        let (before, x) = place(k, from, to);
        let y = 1. - x;
        let outer = ((A * (x + 1.) - 5. * A) * (x + 1.) + 8. * A) * (x + 1.) - 4. * A;
        let inner = |x: f32| ((A + 2.) * x - (A + 3.)) * x * x + 1.;
        (before, [outer, inner(x), inner(y), 1. - outer - inner(x) - inner(y)])
    })
}

fn lanczos_taps(from: usize, to: usize) -> AxisTaps {
    const S: f64 = FRAC_1_SQRT_2;
    const ROTATIONS: [[f64; 2]; 8] =
        [[1., 0.], [-S, -S], [0., 1.], [S, -S], [-1., 0.], [S, S], [0., -1.], [-S, S]];
    taps(from, to, -3, |k| {
        let (before, x) = place(k, from, to);
        let start = -(f64::from(x) + 3.) * PI * 0.25;
        let mut weights = [0f32; 8];
        for (index, (weight, rotation)) in weights.iter_mut().zip(ROTATIONS).enumerate() {
            let apart = x + 3. - index as f32;
            // At the pixel itself the formula is 0 / 0; a large weight makes it the only one that counts.
            *weight = if apart.abs() < 1e-6 {
                1e30
            } else {
                let y = -f64::from(apart) * PI * 0.25;
                ((rotation[0] * start.sin() + rotation[1] * start.cos()) / (y * y)) as f32
            };
        }
        let share = 1. / weights.iter().sum::<f32>();
        (before, weights.map(|weight| weight * share))
    })
}

/// The parts of input pixels in each output pixel, as `(output, input, share)`.
fn area_taps(from: usize, to: usize) -> Vec<(usize, usize, f32)> {
    let scale = 1. / (to as f64 / from as f64);
    let mut parts = Vec::new();
    for k in 0..to {
        let (low, high) = (k as f64 * scale, k as f64 * scale + scale);
        let cell = scale.min(from as f64 - low);
        let last = (high.floor() as usize).min(from - 1);
        let first = (low.ceil() as usize).min(last);
        if first as f64 - low > 1e-3 {
            parts.push((k, first - 1, ((first as f64 - low) / cell) as f32));
        }
        parts.extend((first..last).map(|pixel| (k, pixel, (1. / cell) as f32)));
        if high - last as f64 > 1e-3 {
            parts.push((k, last, ((high - last as f64).min(1.).min(cell) / cell) as f32));
        }
    }
    parts
}

// ---- Sums ----------------------------------------------------------------------------------------------------------

fn floats(source: &[u8]) -> Vec<f32> {
    source.iter().map(|&value| f32::from(value)).collect()
}

fn round(value: f32) -> u8 {
    value.round_ties_even().clamp(0., 255.) as u8
}

fn gather<T: Copy>(source: &[T], from: [usize; 2], to: [usize; 2]) -> Vec<T> {
    let columns: Vec<usize> = nearest(from[0], to[0]).collect();
    nearest(from[1], to[1])
        .flat_map(|row| columns.iter().map(move |column| 3 * (row * from[0] + column)))
        .flat_map(|at| source[at..at + 3].iter().copied())
        .collect()
}

/// Means of two by two pixels, halves rounded up.
fn quarter(source: &[u8], from: [usize; 2], to: [usize; 2]) -> Vec<u8> {
    let sums = sums(&floats(source), from, to, [2, 2]);
    sums.into_iter().map(|sum| ((sum as u32 + 2) >> 2) as u8).collect()
}

fn sums(source: &[f32], from: [usize; 2], to: [usize; 2], scale: [usize; 2]) -> Vec<f32> {
    let mut sums = vec![0f32; 3 * to[0] * to[1]];
    for (row, line) in source.chunks_exact(3 * from[0]).take(to[1] * scale[1]).enumerate() {
        let into = &mut sums[3 * to[0] * (row / scale[1])..];
        for (block, sum) in line.chunks_exact(3 * scale[0]).zip(into.chunks_exact_mut(3)) {
            for pixel in block.chunks_exact(3) {
                sum.iter_mut().zip(pixel).for_each(|(sum, value)| *sum += value);
            }
        }
    }
    sums
}

/// Weighted sums over parts of pixels: along each row, then over the rows.
fn weighted(source: &[f32], width: usize, [columns, rows]: [Vec<(usize, usize, f32)>; 2]) -> Vec<f32> {
    let size = |parts: &[(usize, usize, f32)]| parts.last().map_or(0, |(pixel, ..)| pixel + 1);
    let stride = 3 * size(&columns);
    let mut values = vec![0f32; stride * size(&rows)];
    let mut line = vec![0f32; stride];
    for (into, row, share) in rows {
        line.fill(0.);
        let source = &source[3 * width * row..];
        for &(pixel, from, share) in &columns {
            for channel in 0..3 {
                line[3 * pixel + channel] += source[3 * from + channel] * share;
            }
        }
        let into = &mut values[stride * into..];
        into.iter_mut().zip(&line).for_each(|(sum, value)| *sum += value * share);
    }
    values
}

fn along(source: &[f32], width: usize, columns: &AxisTaps, rows: &AxisTaps) -> Vec<f32> {
    let stride = columns.from.len() / columns.count * 3;
    let mut lines = Vec::with_capacity(source.len() / (3 * width) * stride);
    for line in source.chunks_exact(3 * width) {
        for k in 0..stride / 3 {
            let mut sum = [0f32; 3];
            for (from, weight) in columns.of(k) {
                (0..3).for_each(|channel| sum[channel] += line[3 * from + channel] * weight);
            }
            lines.extend(sum);
        }
    }
    let mut values = vec![0f32; rows.from.len() / rows.count * stride];
    for (k, into) in values.chunks_exact_mut(stride).enumerate() {
        for (from, weight) in rows.of(k) {
            into.iter_mut().zip(&lines[stride * from..]).for_each(|(sum, value)| *sum += value * weight);
        }
    }
    values
}

/// Weighted sums of 8-bit images, with 11-bit weights along the rows and again along the columns.
fn fixed(source: &[u8], width: usize, [columns, rows]: &[AxisTaps; 2]) -> Vec<u8> {
    let weight = |weight: f32| (weight * (1 << BITS) as f32).round_ties_even() as i32;
    let stride = columns.from.len() / columns.count * 3;
    let mut lines: Vec<i32> = Vec::with_capacity(source.len() / (3 * width) * stride);
    for line in source.chunks_exact(3 * width) {
        for k in 0..stride / 3 {
            let mut sum = [0; 3];
            for (from, share) in columns.of(k) {
                let share = weight(share);
                (0..3).for_each(|channel| sum[channel] += i32::from(line[3 * from + channel]) * share);
            }
            lines.extend(sum);
        }
    }
    let height = rows.from.len() / rows.count;
    let mut values = Vec::with_capacity(height * stride);
    for k in 0..height {
        let taps: Vec<(usize, i32)> = rows.of(k).map(|(from, share)| (from, weight(share))).collect();
        for x in 0..stride {
            let terms = taps.iter().map(|&(from, share)| (lines[stride * from + x], share));
            values.push(if rows.count == 2 {
                // Two taps keep 7 bits of each product, as OpenCV does for speed.
                let sum: i32 = terms.map(|(value, share)| ((value >> 4) * share) >> 16).sum();
                ((sum + 2) >> 2).clamp(0, 255) as u8
            } else {
                let sum: i32 = terms.map(|(value, share)| value * share).sum();
                ((sum + (1 << (2 * BITS - 1))) >> (2 * BITS)).clamp(0, 255) as u8
            });
        }
    }
    values
}
