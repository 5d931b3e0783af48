//! 3x3 convolutions of stride 1 and padding 1, by Winograd's F(4x4, 3x3).
//!
//! An output tile of 4x4 values needs an input tile of 6x6. Both, and the 3x3 weights, are transformed to 36 values, in
//! which the convolution is a product: 36 multiplications instead of 144 (Lavin & Gray 2016, §4.3, with the interpolation
//! points 0, ±1, ±2, ∞). Rounding is several times that of a
//! direct sum in f32; the tests bound the relative error by 1e-5.

mod transform;
mod weights;

pub use weights::Conv3x3Weights;

use crate::buffer::{Output, workspace};
use crate::product::{Panel, panel};
use crate::simd::{Simd, SimdKernel, run};
use crate::threads::Threads;
use transform::{POINTS, TILE, input_tile, output_tile};

/// Additions to the sums of a convolution.
#[derive(Debug, Clone, Copy, Default)]
pub struct Conv3x3Epilogue<'a> {
    /// `[K]`.
    pub bias: Option<&'a [f32]>,
    /// `[B, K]`, such as a time embedding.
    pub image_bias: Option<&'a [f32]>,
    /// `[B, H, W, K]`, such as the input of a residual block.
    pub residual: Option<&'a [f32]>,
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

/// Tiles of a task: four rows of register tiles: the the weights are read from memory once for 56 tiles.
const TASK_TILES: usize = 56;
/// Output channels between two output transforms. Their products, `[36, TASK_TILES, CHANNELS]`, stay in the L2 cache.
const CHANNELS: usize = 128;

/// Convolves `input` `[B, H, W, C]` (channels_last) into `output` `[B, H, W, K]`.
///
/// # Panics
/// When a slice does not have the size that `size` and `weights` require.
pub fn conv3x3(
    threads: &dyn Threads,
    weights: &Conv3x3Weights,
    size: ImageSize,
    input: &[f32],
    prologue: Option<Conv3x3Prologue<'_>>,
    epilogue: Conv3x3Epilogue<'_>,
    output: &mut [f32],
) {
    let (channels_in, channels_out) = weights.channels();
    assert_eq!(input.len(), size.pixels() * channels_in, "input [B, H, W, C]");
    assert_eq!(output.len(), size.pixels() * channels_out, "output [B, H, W, K]");
    if let Some(prologue) = prologue {
        assert_eq!(prologue.scale.len(), size.batch * channels_in, "scale [B, C]");
        assert_eq!(prologue.shift.len(), size.batch * channels_in, "shift [B, C]");
    }
    let lengths = [
        (epilogue.bias, channels_out),
        (epilogue.image_bias, size.batch * channels_out),
        (epilogue.residual, output.len()),
    ];
    for (values, length) in lengths {
        assert!(values.is_none_or(|values| values.len() == length), "an epilogue of {length} values");
    }
    let chunks = size.tiles().div_ceil(TASK_TILES);
    // Few tiles: the threads share the output channels instead, and each weight is still read once.
    let groups = channels_out.div_ceil(CHANNELS);
    let parts = (2 * threads.count()).div_ceil(chunks.max(1)).min(groups).max(1);
    let part_groups = groups.div_ceil(parts);
    let kernel = Winograd {
        weights,
        size,
        input,
        prologue,
        epilogue,
        output: Output::new(output),
        parts,
        part_channels: part_groups * CHANNELS,
    };
    threads.run(chunks * parts, &|task| {
        // SAFETY: a weight's level is available, and the task runs once.
        unsafe { run(weights.level(), &kernel, task) }
    });
}

struct Winograd<'a> {
    weights: &'a Conv3x3Weights,
    size: ImageSize,
    input: &'a [f32],
    prologue: Option<Conv3x3Prologue<'a>>,
    epilogue: Conv3x3Epilogue<'a>,
    /// A task writes the pixels of its tiles and the channels of its part.
    output: Output,
    /// Parts of the output channels.
    parts: usize,
    part_channels: usize,
}

/// A 4x4 output tile.
#[derive(Clone, Copy)]
struct OutputTile {
    image: usize,
    row: usize,
    column: usize,
}

impl Winograd<'_> {
    #[inline(always)]
    fn tile(&self, index: usize) -> OutputTile {
        let (rows, columns) = (self.size.height.div_ceil(TILE), self.size.width.div_ceil(TILE));
        let (image, within) = (index / (rows * columns), index % (rows * columns));
        OutputTile { image, row: within / columns * TILE, column: within % columns * TILE }
    }
}

impl SimdKernel for Winograd<'_> {
    #[inline(always)]
    unsafe fn task<S: Simd>(&self, task: usize) {
        let (chunk, part) = (task / self.parts, task % self.parts);
        let first = chunk * TASK_TILES;
        let tiles = TASK_TILES.min(self.size.tiles() - first);
        let (channels_in, channels_out) = self.weights.channels();
        let channels = part * self.part_channels..channels_out.min((part + 1) * self.part_channels);
        let mut workspace = workspace(POINTS * TASK_TILES * (channels_in + CHANNELS));
        let inputs = workspace.as_mut_ptr(); // [36, tiles, C]
        let products = inputs.wrapping_add(POINTS * TASK_TILES * channels_in); // [36, tiles, CHANNELS]
        // SAFETY: the workspace has room for both; the rest is each function's promise.
        unsafe {
            for tile in 0..tiles {
                let to = inputs.add(tile * channels_in);
                input_tile::<S>(self, self.tile(first + tile), to, tiles * channels_in);
            }
            let mut start = channels.start;
            while start < channels.end {
                let count = CHANNELS.min(channels.end - start);
                for point in 0..POINTS {
                    let block = Panel {
                        a: inputs.add(point * tiles * channels_in),
                        a_stride: channels_in,
                        rows: tiles,
                        b: std::ptr::null(),
                        depth: channels_in,
                        c: products.add(point * tiles * CHANNELS),
                        c_stride: CHANNELS,
                        accumulate: false,
                    };
                    let mut done = 0;
                    while done < count {
                        let b = self.weights.panel(point, start + done);
                        panel::<S, 2>(Panel { b, c: block.c.add(done), ..block });
                        done += 2 * S::LANES;
                    }
                }
                for tile in 0..tiles {
                    let from = products.add(tile * CHANNELS);
                    let range = start..start + count;
                    output_tile::<S>(self, self.tile(first + tile), from, tiles * CHANNELS, range);
                }
                start += count;
            }
        }
    }
}
