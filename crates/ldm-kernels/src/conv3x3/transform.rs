//! The transforms of input and output tiles.

use super::{Conv3x3, DEPTH, OutputTile};
use crate::buffer::Output;
use crate::element::Element;
use crate::simd::Simd;

/// Output values of a tile in each direction.
pub(super) const TILE: usize = 4;
/// Input values of a tile in each direction.
pub(super) const SIDE: usize = 6;
/// Products of a tile.
pub(super) const POINTS: usize = SIDE * SIDE;

/// G g.
#[inline(always)]
unsafe fn weight_transform<S: Simd>(g: [S::V; 3]) -> [S::V; SIDE] {
    // SAFETY: arithmetic alone.
    unsafe {
        let (sixth, twelfth) = (S::splat(1. / 6.), S::splat(1. / 12.));
        let outer = S::mul(S::add(g[0], g[2]), S::splat(-1. / 6.));
        let inner = S::mul(g[1], sixth);
        let far = S::mul_add(g[2], sixth, S::mul(g[0], S::splat(1. / 24.)));
        let middle = S::mul(g[1], twelfth);
        [
            S::mul(g[0], S::splat(0.25)),
            S::sub(outer, inner),
            S::add(outer, inner),
            S::add(far, middle),
            S::sub(far, middle),
            g[2],
        ]
    }
}

/// Transforms the weights of a vector of output channels for one input channel: 9 vectors at the distance `stride` to 36.
///
/// # Safety
/// As [`Simd`]; 9 vectors are read and 36 written.
#[inline(always)]
pub(super) unsafe fn weight_tile<S: Simd>(from: *const f32, to: *mut f32, stride: usize) {
    // SAFETY: the caller's promise.
    unsafe {
        let zero = S::splat(0.);
        let mut columns = [[zero; SIDE]; 3]; // [column][point of the rows]
        for (j, column) in columns.iter_mut().enumerate() {
            let mut weights = [zero; 3];
            for (i, weight) in weights.iter_mut().enumerate() {
                *weight = S::load(from.add((3 * i + j) * stride));
            }
            *column = weight_transform::<S>(weights);
        }
        let [first, second, third] = columns;
        for (i, ((&a, &b), &c)) in first.iter().zip(&second).zip(&third).enumerate() {
            let row = weight_transform::<S>([a, b, c]);
            for (j, &value) in row.iter().enumerate() {
                S::store(to.add((i * SIDE + j) * stride), value);
            }
        }
    }
}

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

/// The place of a transformed input tile, in blocks of channels: `[C / DEPTH, 36, tiles, DEPTH]`.
#[derive(Clone, Copy)]
pub(super) struct TransformedInput {
    /// The tile, at its first channel and point.
    pub(super) to: *mut f32,
    /// Distance of the points.
    pub(super) point: usize,
    /// Distance of the blocks.
    pub(super) block: usize,
}

/// Transforms the input of a tile, all channels. Pixels outside of the image are zero, also after the prologue.
///
/// # Safety
/// As [`Simd`]; the tile lies in the image, and `to` has room for the tile.
#[inline(always)]
pub(super) unsafe fn input_tile<S: Simd, T: Element>(
    conv: &Conv3x3<'_, T>,
    tile: OutputTile,
    to: TransformedInput,
) {
    let channels = conv.channels;
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
                        *pixel = T::load_up_to::<S>(from, lanes);
                        if let Some((scale, shift)) = norm {
                            *pixel = S::silu(S::mul_add(*pixel, scale, shift));
                        }
                    }
                }
                *transformed = input_transform::<S>(pixels);
            }
            let at = channel / DEPTH * to.block + channel % DEPTH;
            for i in 0..SIDE {
                let mut row = [zero; SIDE];
                for (value, column) in row.iter_mut().zip(&columns) {
                    *value = column[i];
                }
                let row = input_transform::<S>(row);
                for (j, &value) in row.iter().enumerate() {
                    S::store_up_to(to.to.add((i * SIDE + j) * to.point + at), value, lanes);
                }
            }
        }
        channel += S::LANES;
    }
}

/// Channels of the output.
#[derive(Clone, Copy)]
pub(super) struct OutputChannels<T> {
    /// `[B, H, W, all]`.
    pub(super) output: Output<T>,
    /// Channels of a pixel.
    pub(super) all: usize,
    pub(super) first: usize,
    pub(super) count: usize,
}

/// Transforms the products of a tile, `from[point·stride + channel − first]`, adds the epilogue, and writes the
/// pixels inside of the image.
///
/// # Safety
/// As [`Simd`]; the tile lies in the image, and `from` has 36 rows of whole vectors.
#[inline(always)]
pub(super) unsafe fn output_tile<S: Simd, T: Element>(
    conv: &Conv3x3<'_, T>,
    tile: OutputTile,
    from: *const f32,
    stride: usize,
    to: OutputChannels<T>,
) {
    let OutputChannels { output, all, first, count } = to;
    let (height, width) = (conv.size.height, conv.size.width);
    let epilogue = conv.epilogue;
    let mut channel = first;
    while channel < first + count {
        let lanes = first + count - channel;
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
            let from = from.add(channel - first);
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
                        value = S::add(value, T::load_up_to::<S>(residual.as_ptr().add(at), lanes));
                    }
                    T::store_up_to::<S>(output.at(at), value, lanes);
                }
            }
        }
        channel += S::LANES;
    }
}
