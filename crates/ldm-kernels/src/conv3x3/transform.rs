//! The transforms of input and output tiles.

use std::ops::Range;

use super::{OutputTile, Winograd};
use crate::simd::Simd;

/// Output values of a tile in each direction.
pub(super) const TILE: usize = 4;
/// Input values of a tile in each direction.
pub(super) const SIDE: usize = 6;
/// Products of a tile.
pub(super) const POINTS: usize = SIDE * SIDE;

/// G, `[6, 3]`.
pub(super) const WEIGHT_TRANSFORM: [[f64; 3]; SIDE] = [
    [1. / 4., 0., 0.],
    [-1. / 6., -1. / 6., -1. / 6.],
    [-1. / 6., 1. / 6., -1. / 6.],
    [1. / 24., 1. / 12., 1. / 6.],
    [1. / 24., -1. / 12., 1. / 6.],
    [0., 0., 1.],
];

/// Bᵀ d.
#[inline(always)]
unsafe fn input_transform<S: Simd>(d: [S::V; SIDE]) -> [S::V; SIDE] {
    // SAFETY: arithmetic alone.
    unsafe {
        let (two, four, five) = (S::splat(2.), S::splat(4.), S::splat(5.));
        let even = S::neg_mul_add(four, d[2], d[4]);
        let odd = S::neg_mul_add(four, d[1], d[3]);
        let outer = S::sub(d[4], d[2]);
        let inner = S::mul(two, S::sub(d[3], d[1]));
        [
            S::mul_add(four, d[0], S::neg_mul_add(five, d[2], d[4])),
            S::add(even, odd),
            S::sub(even, odd),
            S::add(outer, inner),
            S::sub(outer, inner),
            S::mul_add(four, d[1], S::neg_mul_add(five, d[3], d[5])),
        ]
    }
}

/// Aᵀ m.
#[inline(always)]
unsafe fn output_transform<S: Simd>(m: [S::V; SIDE]) -> [S::V; TILE] {
    // SAFETY: arithmetic alone.
    unsafe {
        let (two, four, eight) = (S::splat(2.), S::splat(4.), S::splat(8.));
        let (sum1, difference1) = (S::add(m[1], m[2]), S::sub(m[1], m[2]));
        let (sum2, difference2) = (S::add(m[3], m[4]), S::sub(m[3], m[4]));
        [
            S::add(m[0], S::add(sum1, sum2)),
            S::mul_add(two, difference2, difference1),
            S::mul_add(four, sum2, sum1),
            S::add(S::mul_add(eight, difference2, difference1), m[5]),
        ]
    }
}

/// Transforms the input of a tile, all channels, to `to[point·stride + channel]`. Pixels outside of the image are zero,
/// also after the prologue.
///
/// # Safety
/// As [`Simd`]; the tile lies in the image, and `to` has room for 36 rows of C values.
#[inline(always)]
pub(super) unsafe fn input_tile<S: Simd>(conv: &Winograd<'_>, tile: OutputTile, to: *mut f32, stride: usize) {
    let (channels, _) = conv.weights.channels();
    let (height, width) = (conv.size.height, conv.size.width);
    let image = conv.input.as_ptr().wrapping_add(tile.image * height * width * channels);
    let mut channel = 0;
    while channel < channels {
        let lanes = channels - channel;
        // SAFETY: `lanes` channels of a pixel inside of the image.
        unsafe {
            let zero = S::splat(0.);
            let at = tile.image * channels + channel;
            let mut norm = None;
            if let Some(prologue) = conv.prologue {
                let scale = S::load_up_to(prologue.scale.as_ptr().add(at), lanes);
                norm = Some((scale, S::load_up_to(prologue.shift.as_ptr().add(at), lanes)));
            }
            let mut columns = [[zero; SIDE]; SIDE]; // [column][point of the rows]
            for (j, transformed) in columns.iter_mut().enumerate() {
                let column = (tile.column + j).wrapping_sub(1); // beyond the width for −1
                let mut pixels = [zero; SIDE];
                for (i, pixel) in pixels.iter_mut().enumerate() {
                    let row = (tile.row + i).wrapping_sub(1);
                    if row < height && column < width {
                        let from = image.add((row * width + column) * channels + channel);
                        *pixel = S::load_up_to(from, lanes);
                        if let Some((scale, shift)) = norm {
                            *pixel = S::silu(S::mul_add(*pixel, scale, shift));
                        }
                    }
                }
                *transformed = input_transform::<S>(pixels);
            }
            for i in 0..SIDE {
                let mut row = [zero; SIDE];
                for (value, column) in row.iter_mut().zip(&columns) {
                    *value = column[i];
                }
                let row = input_transform::<S>(row);
                for (j, &value) in row.iter().enumerate() {
                    S::store_up_to(to.add((i * SIDE + j) * stride + channel), value, lanes);
                }
            }
        }
        channel += S::LANES;
    }
}

/// Transforms the products of a tile, `from[point·stride + channel − channels.start]`, adds the epilogue, and writes the
/// pixels inside of the image.
///
/// # Safety
/// As [`Simd`]; the tile lies in the image, and `from` has 36 rows of whole vectors.
#[inline(always)]
pub(super) unsafe fn output_tile<S: Simd>(
    conv: &Winograd<'_>,
    tile: OutputTile,
    from: *const f32,
    stride: usize,
    channels: Range<usize>,
) {
    let (_, all) = conv.weights.channels();
    let (height, width) = (conv.size.height, conv.size.width);
    let epilogue = conv.epilogue;
    let mut channel = channels.start;
    while channel < channels.end {
        let lanes = channels.end - channel;
        // SAFETY: `lanes` channels of pixels inside of the image.
        unsafe {
            let zero = S::splat(0.);
            let mut bias = zero;
            if let Some(of_channel) = epilogue.bias {
                bias = S::load_up_to(of_channel.as_ptr().add(channel), lanes);
            }
            if let Some(of_image) = epilogue.image_bias {
                let of_image = of_image.as_ptr().add(tile.image * all + channel);
                bias = S::add(bias, S::load_up_to(of_image, lanes));
            }
            let from = from.add(channel - channels.start);
            let mut columns = [[zero; TILE]; SIDE]; // [point of the columns][row]
            for (j, transformed) in columns.iter_mut().enumerate() {
                let mut points = [zero; SIDE];
                for (i, point) in points.iter_mut().enumerate() {
                    *point = S::load(from.add((i * SIDE + j) * stride));
                }
                *transformed = output_transform::<S>(points);
            }
            for i in 0..TILE {
                let mut row = [zero; SIDE];
                for (value, column) in row.iter_mut().zip(&columns) {
                    *value = column[i];
                }
                let values = output_transform::<S>(row);
                let y = tile.row + i;
                if y >= height {
                    break;
                }
                for (j, &value) in values.iter().enumerate() {
                    let x = tile.column + j;
                    if x >= width {
                        break;
                    }
                    let at = ((tile.image * height + y) * width + x) * all + channel;
                    let mut value = S::add(value, bias);
                    if let Some(residual) = epilogue.residual {
                        value = S::add(value, S::load_up_to(residual.as_ptr().add(at), lanes));
                    }
                    S::store_up_to(conv.output.at(at), value, lanes);
                }
            }
        }
        channel += S::LANES;
    }
}
