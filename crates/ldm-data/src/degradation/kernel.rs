//! Blur kernels and convolution.

use crate::image::float_image::FloatImage;

/// A square kernel whose weights sum to 1.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Kernel {
    pub(crate) side: usize,
    /// `[side, side]`.
    pub(crate) weights: Vec<f64>,
}

/// A blur, by its random parameters.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) enum Blur {
    Round {
        side: usize,
        sigma: f64,
    },
    /// `spread` are the variances along and across the direction `angle`, in radians.
    Long {
        side: usize,
        angle: f64,
        spread: [f64; 2],
    },
}

impl Blur {
    pub(crate) fn kernel(self) -> Kernel {
        match self {
            Self::Round { side, sigma } => Kernel::round(side, sigma),
            Self::Long { side, angle, spread } => Kernel::long(side, angle, spread),
        }
    }
}

/// Least variance: a kernel of variance 0 is a point.
const LEAST: f64 = 1e-12;

impl Kernel {
    /// An isotropic Gaussian about the center. CompVis `bsrgan_light.py:197` `fspecial_gaussian`.
    ///
    /// A narrow one of even side is all zeros there, and the image black: every value underflows. Here it is the mean
    /// of the four center pixels, which is the limit.
    pub(crate) fn round(side: usize, sigma: f64) -> Self {
        let variance = (sigma * sigma).max(LEAST);
        Self::gaussian(side, true, |x, y| (x * x + y * y) / variance)
    }

    /// An anisotropic Gaussian. CompVis `bsrgan_light.py:76` `anisotropic_Gaussian`.
    pub(crate) fn long(side: usize, angle: f64, spread: [f64; 2]) -> Self {
        let (sin, cos) = angle.sin_cos();
        let [along, across] = spread.map(|variance| variance.max(LEAST));
        Self::gaussian(side, false, |x, y| {
            (x * cos + y * sin).powi(2) / along + (x * sin - y * cos).powi(2) / across
        })
    }

    /// `exp(-distance / 2)`, normalized to a sum of 1; `cut` drops values below the last bit of the largest.
    fn gaussian(side: usize, cut: bool, distance: impl Fn(f64, f64) -> f64) -> Self {
        let middle = (side as f64 - 1.) / 2.;
        let at = |k: usize| distance((k % side) as f64 - middle, (k / side) as f64 - middle);
        let distances: Vec<f64> = (0..side * side).map(at).collect();
        let least = distances.iter().copied().fold(f64::INFINITY, f64::min);
        // Relative to the largest, so that not all of them underflow.
        let relative = |distance: &f64| (-(distance - least) / 2.).exp();
        let mut weights: Vec<f64> = distances.iter().map(relative).collect();
        if cut {
            weights.iter_mut().filter(|weight| **weight < f64::EPSILON).for_each(|weight| *weight = 0.);
        }
        Self { side, weights }.normalized()
    }

    fn normalized(mut self) -> Self {
        let sum: f64 = self.weights.iter().sum();
        self.weights.iter_mut().for_each(|weight| *weight /= sum);
        self
    }

    /// Shifts the kernel up and left by half of `factor - 1` pixels, so that every `factor`-th pixel shows the center
    /// of its block; with linear interpolation and a clamped border. CompVis `bsrgan_light.py:115` `shift_pixel`.
    pub(crate) fn shifted(&self, factor: usize) -> Self {
        let shift = (factor as f64 - 1.) * 0.5;
        let last = self.side - 1;
        let place = |k: usize| {
            let at = (k as f64 + shift).min(last as f64);
            let before = (at.floor() as usize).min(last);
            (before, (before + 1).min(last), at - before as f64)
        };
        let value = |y: usize, x: usize| self.weights[y * self.side + x];
        let mut weights = Vec::with_capacity(self.weights.len());
        for y in 0..self.side {
            let (top, below, down) = place(y);
            for x in 0..self.side {
                let (left, right, past) = place(x);
                let row = |y: usize| value(y, left) * (1. - past) + value(y, right) * past;
                weights.push(row(top) * (1. - down) + row(below) * down);
            }
        }
        Self { side: self.side, weights }.normalized()
    }

    /// Convolves an image, mirrored about the pixels of its border: `scipy.ndimage.convolve`, mode `mirror`.
    pub(crate) fn convolve(&self, image: &FloatImage) -> FloatImage {
        let (width, height, side) = (image.width, image.height, self.side);
        let half = side / 2;
        // One padded row at a time, so that a tap adds a multiple of a row to a row.
        let padded = |row: usize| -> Vec<f32> {
            let line = &image.values[3 * width * row..3 * width * (row + 1)];
            (0..width + side)
                .flat_map(|k| {
                    let from = 3 * mirror(k as isize - (side - 1 - half) as isize, width);
                    [line[from], line[from + 1], line[from + 2]]
                })
                .collect()
        };
        let lines: Vec<Vec<f32>> = (0..height).map(padded).collect();
        let mut values = vec![0f32; 3 * width * height];
        for (row, into) in values.chunks_exact_mut(3 * width).enumerate() {
            for (y, weights) in self.weights.chunks_exact(side).enumerate() {
                let line = &lines[mirror((row + half) as isize - y as isize, height)];
                for (x, &weight) in weights.iter().enumerate() {
                    let weight = weight as f32;
                    if weight != 0. {
                        let from = &line[3 * (side - 1 - x)..];
                        into.iter_mut().zip(from).for_each(|(sum, value)| *sum += weight * value);
                    }
                }
            }
        }
        FloatImage { width, height, values }
    }
}

/// An index inside `0..len`, mirrored about the first and the last.
fn mirror(index: isize, len: usize) -> usize {
    if len == 1 {
        return 0;
    }
    let period = 2 * (len as isize - 1);
    let index = index.rem_euclid(period);
    index.min(period - index) as usize
}
