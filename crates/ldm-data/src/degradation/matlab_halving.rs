//! Halving as Matlab's `imresize`: bicubic, antialiased.

use crate::image::float_image::FloatImage;

/// Halves both sides, rounded up. CompVis `utils_image.py:839` `imresize_np` with a scale of one half.
///
/// Keys' cubic with a = -0.5, widened by two; the border is mirrored with its pixels repeated.
pub(crate) fn halved(image: &FloatImage) -> FloatImage {
    let (width, height) = (image.width.div_ceil(2), image.height.div_ceil(2));
    let weights = weights();
    let mut lines = vec![0f32; 3 * image.width * height];
    for (row, into) in lines.chunks_exact_mut(3 * image.width).enumerate() {
        for (tap, weight) in weights.iter().enumerate() {
            let from = repeat(2 * row as isize + tap as isize - FIRST, image.height);
            let line = &image.values[3 * image.width * from..];
            into.iter_mut().zip(line).for_each(|(sum, value)| *sum += weight * value);
        }
    }
    let mut values = vec![0f32; 3 * width * height];
    for (line, into) in lines.chunks_exact(3 * image.width).zip(values.chunks_exact_mut(3 * width)) {
        for (column, pixel) in into.chunks_exact_mut(3).enumerate() {
            for (tap, weight) in weights.iter().enumerate() {
                let from = 3 * repeat(2 * column as isize + tap as isize - FIRST, image.width);
                pixel.iter_mut().zip(&line[from..]).for_each(|(sum, value)| *sum += weight * value);
            }
        }
    }
    FloatImage { width, height, values }
}

/// Offset of the first of eight taps before pixel `2 k`.
const FIRST: isize = 3;

/// The same for every pixel, since each is centered between two: at distances 0.25 to 1.75, in both directions.
fn weights() -> [f32; 8] {
    let cubic = |x: f64| {
        let x = x.abs();
        if x <= 1. { (1.5 * x - 2.5) * x * x + 1. } else { ((-0.5 * x + 2.5) * x - 4.) * x + 2. }
    };
    let weights = [0., 1., 2., 3., 4., 5., 6., 7.].map(|tap: f64| cubic((tap - 3.5) / 2.));
    let sum: f64 = weights.iter().sum();
    weights.map(|weight| (weight / sum) as f32)
}

/// An index inside `0..len`, mirrored with the first and the last repeated.
fn repeat(index: isize, len: usize) -> usize {
    let period = 2 * len as isize;
    let index = index.rem_euclid(period);
    index.min(period - 1 - index) as usize
}
