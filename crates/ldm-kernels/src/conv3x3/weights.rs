//! Transformed weights.

use crate::Level;
use crate::buffer::{Buffer, Output};
use crate::threads::Threads;

use super::transform::{POINTS, SIDE, WEIGHT_TRANSFORM};

/// The weights of a 3x3 convolution, transformed once: four times the memory of the original.
pub struct Conv3x3Weights {
    level: Level,
    channels_in: usize,
    channels_out: usize,
    /// `[36, K / panel, C, panel]`; channels beyond K are zero.
    values: Buffer,
}

impl std::fmt::Debug for Conv3x3Weights {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { level, channels_in, channels_out, .. } = self;
        write!(f, "Conv3x3Weights {{ {level}, {channels_in} -> {channels_out} }}")
    }
}

impl Conv3x3Weights {
    /// Transforms `weight` `[K, C, 3, 3]` for the kernels of `level`. The transform is computed in f64 and rounded once.
    ///
    /// # Panics
    /// When this processor does not have `level`, or `weight` not `K·C·9` values.
    pub fn new(
        threads: &dyn Threads,
        level: Level,
        [channels_out, channels_in]: [usize; 2],
        weight: &[f32],
    ) -> Self {
        assert!(level.is_available(), "{level} is not available on this processor");
        assert_eq!(weight.len(), channels_out * channels_in * 9, "weight [K, C, 3, 3]");
        let mut values = Buffer::zeros(Self::bytes(level, [channels_out, channels_in]) / size_of::<f32>());
        let width = panel_width(level);
        let panels = channels_out.div_ceil(width);
        let output = Output::new(values.as_mut_slice());
        // A task is a panel of output channels.
        threads.run(panels, &|panel| {
            for out in panel * width..channels_out.min((panel + 1) * width) {
                for channel in 0..channels_in {
                    let kernel = &weight[(out * channels_in + channel) * 9..][..9];
                    for (point, value) in transformed(kernel).into_iter().enumerate() {
                        let row = (point * panels + panel) * channels_in + channel;
                        // SAFETY: inside `[36, panels, C, width]`, and each value has its own place.
                        unsafe { output.at(row * width + out % width).write(value) };
                    }
                }
            }
        });
        Self { level, channels_in, channels_out, values }
    }

    /// Memory of the transformed weights of `[K, C]` channels.
    pub fn bytes(level: Level, [channels_out, channels_in]: [usize; 2]) -> usize {
        POINTS * channels_out.next_multiple_of(panel_width(level)) * channels_in * size_of::<f32>()
    }

    /// Input and output channels, C and K.
    pub fn channels(&self) -> (usize, usize) {
        (self.channels_in, self.channels_out)
    }

    /// The level of the kernels that these weights are for.
    pub fn level(&self) -> Level {
        self.level
    }

    /// The panel `[C, width]` of a point that starts with `channel`.
    #[inline(always)]
    pub(super) fn panel(&self, point: usize, channel: usize) -> *const f32 {
        let width = panel_width(self.level);
        let row = (point * self.channels_out.div_ceil(width) + channel / width) * self.channels_in;
        self.values.as_ptr().wrapping_add(row * width)
    }
}

/// Output channels of a panel: two vectors.
#[inline(always)]
fn panel_width(level: Level) -> usize {
    2 * level.lanes()
}

/// G g Gᵀ of a 3x3 kernel g.
fn transformed(kernel: &[f32]) -> [f32; POINTS] {
    let mut rows = [[0.; 3]; SIDE]; // G g
    for (row, weights) in rows.iter_mut().zip(WEIGHT_TRANSFORM) {
        for (column, value) in row.iter_mut().enumerate() {
            *value = (0..3).map(|k| weights[k] * f64::from(kernel[3 * k + column])).sum();
        }
    }
    let mut all = [0.; POINTS];
    for (index, value) in all.iter_mut().enumerate() {
        let (row, weights) = (rows[index / SIDE], WEIGHT_TRANSFORM[index % SIDE]);
        *value = row.iter().zip(weights).map(|(a, b)| a * b).sum::<f64>() as f32;
    }
    all
}
