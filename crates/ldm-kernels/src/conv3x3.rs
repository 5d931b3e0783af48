//! 3x3 convolutions of stride 1 and padding 1, by Winograd's F(4x4, 3x3).
//!
//! An output tile of 4x4 values needs an input tile of 6x6. Both, and the 3x3 weights, are transformed to 36 values, in
//! which the convolution is a product: 36 multiplications instead of 144 (Lavin & Gray 2016, §4.3, with the interpolation
//! points 0, ±1, ±2, ∞). Rounding is several times that of a direct sum in f32; the tests bound the relative error by 1e-5.
//!
//! Tiles are computed in groups whose transformed inputs stay in the L3 cache. First each task transforms a tile; then each
//! computes a panel of output channels of all tiles, and transforms the weights it needs in its L2 cache. Weights that are
//! transformed once would take four times the memory of the original ones, and reading them takes longer than this
//! transform.

mod transform;

use crate::Level;
use crate::buffer::{Output, shared_workspace, workspace};
use crate::element::Element;
use crate::pack::{PanelRows, pack_panel};
use crate::product::{F32, Panel, panel};
use crate::simd::{Simd, SimdKernel, run};
use crate::threads::Threads;
use transform::{OutputChannels, POINTS, TILE, TransformedInput, input_tile, output_tile, weight_tile};

/// A convolution of `[B, H, W, C]` to `[B, H, W, K]` (channels_last), of f32 values or of bf16 numbers by their bits.
#[derive(Debug, Clone, Copy)]
pub struct Conv3x3<'a, T = f32> {
    /// The size of the maps.
    pub size: ImageSize,
    /// Channels of the input, C.
    pub channels: usize,
    /// `[B, H, W, C]`.
    pub input: &'a [T],
    /// `[K, 3, 3, C]` (channels_last).
    pub weight: &'a [T],
    /// A norm of the input.
    pub prologue: Option<Conv3x3Prologue<'a>>,
    /// Additions to the sums.
    pub epilogue: Conv3x3Epilogue<'a, T>,
}

/// Additions to the sums of a convolution.
#[derive(Debug, Clone, Copy)]
pub struct Conv3x3Epilogue<'a, T = f32> {
    /// `[K]`.
    pub bias: Option<&'a [f32]>,
    /// `[B, K]`, such as a time embedding.
    pub image_bias: Option<&'a [f32]>,
    /// `[B, H, W, K]`, such as the input of a residual block.
    pub residual: Option<&'a [T]>,
}

impl<T> Default for Conv3x3Epilogue<'_, T> {
    fn default() -> Self {
        Self { bias: None, image_bias: None, residual: None }
    }
}

/// A normalization of the input before the convolution: `x·scale + shift`, then SiLU.
#[derive(Debug, Clone, Copy)]
pub struct Conv3x3Prologue<'a> {
    /// `[B, C]`.
    pub scale: &'a [f32],
    /// `[B, C]`.
    pub shift: &'a [f32],
}

/// Sizes of a batch of images.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ImageSize {
    /// Images.
    pub batch: usize,
    /// Rows.
    pub height: usize,
    /// Columns.
    pub width: usize,
}

impl ImageSize {
    /// Pixels of all images.
    pub fn pixels(self) -> usize {
        self.batch * self.height * self.width
    }

    /// Tiles of 4x4 output values.
    pub fn tiles(self) -> usize {
        self.batch * self.height.div_ceil(TILE) * self.width.div_ceil(TILE)
    }
}

impl<T> Conv3x3<'_, T> {
    /// Output channels, K.
    fn channels_out(&self) -> usize {
        self.weight.len().checked_div(9 * self.channels).unwrap_or_default()
    }

    fn check(&self, output: &[T]) {
        let Self { size, channels, input, weight, prologue, epilogue } = self;
        assert!(*channels > 0 && weight.len().is_multiple_of(9 * channels), "weight [K, 3, 3, C]");
        let channels_out = self.channels_out();
        assert_eq!(input.len(), size.pixels() * channels, "input [B, H, W, C]");
        assert_eq!(output.len(), size.pixels() * channels_out, "output [B, H, W, K]");
        if let Some(prologue) = prologue {
            assert_eq!(prologue.scale.len(), size.batch * channels, "scale [B, C]");
            assert_eq!(prologue.shift.len(), size.batch * channels, "shift [B, C]");
        }
        let lengths = [
            (epilogue.bias.map(<[f32]>::len), channels_out),
            (epilogue.image_bias.map(<[f32]>::len), size.batch * channels_out),
            (epilogue.residual.map(<[T]>::len), output.len()),
        ];
        for (found, length) in lengths {
            assert!(found.is_none_or(|found| found == length), "an epilogue of {length} values");
        }
    }

    #[inline(always)]
    fn tile(&self, index: usize) -> OutputTile {
        let (rows, columns) = (self.size.height.div_ceil(TILE), self.size.width.div_ceil(TILE));
        let (image, within) = (index / (rows * columns), index % (rows * columns));
        OutputTile { image, row: within / columns * TILE, column: within % columns * TILE }
    }
}

/// A 4x4 output tile.
#[derive(Clone, Copy)]
struct OutputTile {
    image: usize,
    row: usize,
    column: usize,
}

/// Tiles between two transforms of the weights, at most: eight rows of register tiles.
const TILES: usize = 112;
/// Input channels whose weights are transformed at a time, for a panel: `[36, DEPTH, 32]` stay in the L2 cache. A multiple of the
/// lanes of every level.
const DEPTH: usize = 64;
/// Transformed inputs of a group of tiles, in values: about 4 MB, which stay in the L3 cache. With many channels [`TILES`] tiles take
/// more.
const INPUTS: usize = 1 << 20;

/// The distance of two points in a workspace of `[36, values]`. The 36 points of a tile are accessed one after the other; at a
/// distance of 4096 bytes they would share one set of the L1 cache.
#[inline(always)]
fn point_stride(values: usize) -> usize {
    values + 32
}

/// Computes `conv` into `output` `[B, H, W, K]`.
///
/// # Panics
/// When a slice does not have the size that the others require, or `level` is not available.
pub fn conv3x3(threads: &dyn Threads, level: Level, conv: Conv3x3<'_>, output: &mut [f32]) {
    compute(threads, level, conv, output);
}

/// [`conv3x3`] of bf16 numbers, given by their bits. The arithmetic is that of f32; the result is rounded.
///
/// # Panics
/// As [`conv3x3`].
pub fn conv3x3_bf16(threads: &dyn Threads, level: Level, conv: Conv3x3<'_, u16>, output: &mut [u16]) {
    compute(threads, level, conv, output);
}

fn compute<T: Element>(threads: &dyn Threads, level: Level, conv: Conv3x3<'_, T>, output: &mut [T]) {
    assert!(level.is_available(), "{level} is not available on this processor");
    conv.check(output);
    let (tiles, channels_out) = (conv.size.tiles(), conv.channels_out());
    if tiles == 0 || channels_out == 0 {
        return;
    }
    let blocks = conv.channels.div_ceil(DEPTH);
    let group = (INPUTS / (POINTS * DEPTH * blocks)).next_multiple_of(TILES);
    let group = tiles.div_ceil(tiles.div_ceil(group)); // groups of equal size
    let mut workspace = shared_workspace(POINTS * point_stride(group * DEPTH) * blocks);
    let inputs = Output::from_pointer(workspace.as_mut_ptr());
    let output = Output::new(output);
    let mut first = 0;
    while first < tiles {
        let count = group.min(tiles - first);
        let tiles = TileGroup { conv: &conv, inputs, first, count };
        threads.run(count, &|task| {
            // SAFETY: the level is available (above), and the task runs once.
            unsafe { run(level, &tiles, task) }
        });
        let kernel = OutputPanels { tiles: &tiles, channels_out, output };
        threads.run(channels_out.div_ceil(2 * level.lanes()), &|task| {
            // SAFETY: as above.
            unsafe { run(level, &kernel, task) }
        });
        first += count;
    }
}

/// Tiles whose transformed inputs stay in the L3 cache. A task transforms one.
struct TileGroup<'a, T> {
    conv: &'a Conv3x3<'a, T>,
    /// `[C / DEPTH, 36, count, DEPTH]`, the points at [`point_stride`]; a task writes its tile.
    inputs: Output,
    first: usize,
    count: usize,
}

impl<T: Element> SimdKernel for TileGroup<'_, T> {
    #[inline(always)]
    unsafe fn task<S: Simd>(&self, task: usize) {
        let point = point_stride(self.count * DEPTH);
        let to = TransformedInput { to: self.inputs.at(task * DEPTH), point, block: POINTS * point };
        // SAFETY: the tile exists, and the buffer has room for it.
        unsafe { input_tile::<S, T>(self.conv, self.conv.tile(self.first + task), to) };
    }
}

/// Computes a panel of output channels.
struct OutputPanels<'a, T> {
    tiles: &'a TileGroup<'a, T>,
    channels_out: usize,
    /// A task writes its channels of the tiles.
    output: Output<T>,
}

impl<T: Element> SimdKernel for OutputPanels<'_, T> {
    #[inline(always)]
    unsafe fn task<S: Simd>(&self, task: usize) {
        let TileGroup { conv, inputs, first: first_tile, count: all_tiles } = *self.tiles;
        let width = 2 * S::LANES;
        let first = task * width;
        let count = width.min(self.channels_out - first);
        let channels = conv.channels;
        let [weight_stride, product_stride, input_stride] =
            [DEPTH * width, TILES * width, all_tiles * DEPTH].map(point_stride);
        let mut workspace = workspace((POINTS + 9) * weight_stride + POINTS * product_stride);
        let weights = workspace.as_mut_ptr(); // [36, DEPTH, width]
        let products = weights.wrapping_add(POINTS * weight_stride); // [36, TILES, width]
        let packed = products.wrapping_add(POINTS * product_stride); // [9, DEPTH, width]
        let mut start = 0;
        while start < all_tiles {
            let tiles = TILES.min(all_tiles - start);
            let mut channel = 0;
            while channel < channels {
                let depth = DEPTH.min(channels - channel);
                // SAFETY: the workspace has room for all of them; tiles and channels exist.
                unsafe {
                    for position in 0..9 {
                        let from = conv.weight.as_ptr().add((first * 9 + position) * channels + channel);
                        let rows = PanelRows { from, stride: 9 * channels, rows: count, depth };
                        pack_panel::<S, T>(rows, packed.add(position * weight_stride));
                    }
                    for c in 0..depth {
                        for vector in [0, S::LANES] {
                            let (from, to) =
                                (packed.add(c * width + vector), weights.add(c * width + vector));
                            weight_tile::<S>(from, to, weight_stride);
                        }
                    }
                    for point in 0..POINTS {
                        let at = (channel / DEPTH * POINTS + point) * input_stride + start * DEPTH;
                        panel::<S, F32, 2>(Panel {
                            a: inputs.at(at),
                            a_stride: DEPTH,
                            rows: tiles,
                            b: weights.add(point * weight_stride),
                            depth,
                            c: products.add(point * product_stride),
                            c_stride: width,
                            accumulate: channel > 0,
                        });
                    }
                }
                channel += depth;
            }
            for tile in 0..tiles {
                let from = products.wrapping_add(tile * width);
                // SAFETY: the tile exists, and its products were computed.
                unsafe {
                    let tile = conv.tile(first_tile + start + tile);
                    let to = OutputChannels { output: self.output, all: self.channels_out, first, count };
                    output_tile::<S, T>(conv, tile, from, product_stride, to);
                }
            }
            start += tiles;
        }
    }
}
