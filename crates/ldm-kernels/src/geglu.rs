//! The gated GELU of a transformer's feed-forward layer.

use crate::Level;
use crate::buffer::Output;
use crate::simd::{Simd, SimdKernel, run};
use crate::threads::Threads;

/// Rows of a task.
const ROWS: usize = 64;

/// x·gelu(gate) for rows `[x, gate]` of `input` `[rows, 2·width]`, into `output` `[rows, width]` (Shazeer 2020; CompVis
/// `attention.py:38`). gelu is the exact one, x·Φ(x), with an error below 2e-7·|x|.
///
/// # Panics
/// When a slice does not have the size that the other requires, or `level` is not available.
pub fn geglu(threads: &dyn Threads, level: Level, width: usize, input: &[f32], output: &mut [f32]) {
    assert!(level.is_available(), "{level} is not available on this processor");
    assert!(width > 0 && output.len().is_multiple_of(width), "output [rows, width]");
    assert_eq!(input.len(), 2 * output.len(), "input [rows, 2·width]");
    let rows = output.len() / width;
    let kernel = Geglu { input, width, rows, output: Output::new(output) };
    threads.run(rows.div_ceil(ROWS), &|task| {
        // SAFETY: the level is available (above), and the task runs once.
        unsafe { run(level, &kernel, task) }
    });
}

struct Geglu<'a> {
    input: &'a [f32],
    width: usize,
    rows: usize,
    /// A task writes its rows.
    output: Output,
}

impl SimdKernel for Geglu<'_> {
    #[inline(always)]
    unsafe fn task<S: Simd>(&self, task: usize) {
        for row in task * ROWS..self.rows.min((task + 1) * ROWS) {
            let from = self.input.as_ptr().wrapping_add(2 * row * self.width);
            let mut column = 0;
            while column < self.width {
                let lanes = self.width - column;
                // SAFETY: `lanes` values of both halves of a row.
                unsafe {
                    let x = S::load_up_to(from.add(column), lanes);
                    let gate = S::load_up_to(from.add(self.width + column), lanes);
                    let to = self.output.at(row * self.width + column);
                    S::store_up_to(to, S::mul(x, gelu::<S>(gate)), lanes);
                }
                column += S::LANES;
            }
        }
    }
}

/// x·Φ(x), with erf by Abramowitz & Stegun 7.1.26 (absolute error 1.5e-7).
#[inline(always)]
unsafe fn gelu<S: Simd>(x: S::V) -> S::V {
    // SAFETY: arithmetic alone.
    unsafe {
        let one = S::splat(1.);
        let z = S::mul(S::abs(x), S::splat(std::f32::consts::FRAC_1_SQRT_2));
        let t = S::div(one, S::mul_add(z, S::splat(0.327_591_1), one));
        let mut sum = S::splat(1.061_405_4);
        sum = S::mul_add(sum, t, S::splat(-1.453_152));
        sum = S::mul_add(sum, t, S::splat(1.421_413_7));
        sum = S::mul_add(sum, t, S::splat(-0.284_496_74));
        sum = S::mul_add(sum, t, S::splat(0.254_829_6));
        let decay = S::exp(S::sub(S::splat(0.), S::mul(z, z)));
        let erf = S::copy_sign(S::neg_mul_add(S::mul(sum, t), decay, one), x);
        S::mul(S::mul(S::splat(0.5), x), S::add(one, erf))
    }
}
