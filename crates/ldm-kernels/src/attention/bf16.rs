//! Attention in bf16: products of pairs, summed in f32.

use super::AttentionSize;
#[cfg(target_arch = "x86_64")]
use super::{KEYS, Operand, QUERIES, Rows, add_values, score_block};
#[cfg(target_arch = "x86_64")]
use crate::Level;
#[cfg(target_arch = "x86_64")]
use crate::attention::pack::{KeyPanels, ValuePanels, pack_keys, pack_values};
#[cfg(target_arch = "x86_64")]
use crate::buffer::{Output, workspace};
#[cfg(target_arch = "x86_64")]
use crate::simd::{Avx512, Bf16Kernel, Bf16Pairs, Simd, convert_to_bf16, run_bf16};
use crate::threads::Threads;

/// Returns whether this processor multiplies bf16: AVX-512-BF16.
pub fn has_bf16_products() -> bool {
    #[cfg(target_arch = "x86_64")]
    {
        Level::Avx512.is_available() && is_x86_feature_detected!("avx512bf16")
    }
    #[cfg(not(target_arch = "x86_64"))]
    false
}

/// [`attention`](super::attention) of bf16 numbers, given by their bits; sums and the softmax are f32, and its weights are
/// rounded to bf16.
///
/// # Panics
/// As [`attention`](super::attention); without [`has_bf16_products`].
pub fn attention_bf16(
    threads: &dyn Threads,
    size: AttentionSize,
    [q, k, v]: [&[u16]; 3],
    output: &mut [u16],
) {
    assert!(has_bf16_products(), "AVX-512-BF16 is not available on this processor");
    size.check([q.len(), k.len(), v.len(), output.len()]);
    if output.is_empty() {
        return;
    }
    if size.keys == 0 {
        return output.fill(0); // an empty sum
    }
    #[cfg(target_arch = "x86_64")]
    compute(threads, size, [q, k, v], output);
    #[cfg(not(target_arch = "x86_64"))]
    let _ = threads;
}

#[cfg(target_arch = "x86_64")]
fn compute(threads: &dyn Threads, size: AttentionSize, [q, k, v]: [&[u16]; 3], output: &mut [u16]) {
    let heads = size.batch * size.heads;
    // Panels of pairs: of two values of a key, and of the values of two keys.
    let pairs = size.head_size.div_ceil(2);
    let mut keys = KeyPanels::new(Level::Avx512, AttentionSize { head_size: pairs, ..size });
    let mut values = ValuePanels::new(Level::Avx512, AttentionSize { keys: size.keys.div_ceil(2), ..size });
    let packed = [Output::new(keys.buffer.as_mut_slice()), Output::new(values.buffer.as_mut_slice())];
    threads.run(heads, &|head| {
        // SAFETY: each head has its own panels, whose places hold two numbers.
        unsafe {
            pack_keys::<_, 2>(size, k, head, packed[0].at(head * keys.head).cast(), keys.width);
            pack_values::<_, 2>(size, v, head, packed[1].at(head * values.head).cast(), values.lanes);
        }
    });
    let blocks = size.queries.div_ceil(QUERIES);
    let output = Output::new(output);
    let kernel = Bf16QueryBlocks { size, q, pairs, keys: &keys, values: &values, output, blocks };
    threads.run(heads * blocks, &|task| {
        // SAFETY: the processor has the instructions (above), and the task runs once.
        unsafe { run_bf16(&kernel, task) }
    });
}

#[cfg(target_arch = "x86_64")]
struct Bf16QueryBlocks<'a> {
    size: AttentionSize,
    q: &'a [u16],
    /// Pairs of a query.
    pairs: usize,
    keys: &'a KeyPanels,
    values: &'a ValuePanels,
    /// A task writes its query rows of its head.
    output: Output<u16>,
    /// Query blocks of a head.
    blocks: usize,
}

#[cfg(target_arch = "x86_64")]
impl Bf16Kernel for Bf16QueryBlocks<'_> {
    #[inline(always)]
    unsafe fn task(&self, task: usize) {
        let Self { size, pairs, .. } = *self;
        let (head, block) = (task / self.blocks, task % self.blocks);
        let first = block * QUERIES;
        let count = QUERIES.min(size.queries - first);
        let width = self.values.width;
        let mut workspace = workspace(QUERIES * (KEYS + KEYS / 2 + width + pairs));
        let scores = workspace.as_mut_ptr();
        let weights = scores.wrapping_add(QUERIES * KEYS);
        let sums = weights.wrapping_add(QUERIES * KEYS / 2);
        let queries = sums.wrapping_add(QUERIES * width);
        let row_size = size.heads * size.head_size;
        let at = size.query(head, first);
        let mut rows = Rows::new(scores, sums, width, 1. / (size.head_size as f32).sqrt());
        // SAFETY: the workspace has room for the four blocks; the rest is each function's promise.
        unsafe {
            for row in 0..count {
                let to = queries.add(row * pairs);
                to.add(pairs - 1).write(0.); // the second number of the last pair, if d is odd
                let from = &self.q[at + row * row_size..][..size.head_size];
                to.cast::<u16>().copy_from_nonoverlapping(from.as_ptr(), from.len());
            }
            let of_queries = Operand { at: queries.cast_const(), stride: pairs, rows: count };
            let of_weights = Operand { at: weights.cast_const(), stride: KEYS / 2, rows: count };
            let mut key = 0;
            while key < size.keys {
                let keys = KEYS.min(size.keys - key);
                score_block::<Avx512, Bf16Pairs>(self.keys, head, key, keys, of_queries, scores);
                rows.exponentials::<Avx512>(count, keys, key == 0);
                for row in 0..count {
                    let from = scores.add(row * KEYS);
                    if keys % 2 == 1 {
                        from.add(keys).write(0.); // the weight of the key that the last pair does not have
                    }
                    let mut column = 0;
                    while column < keys {
                        let to = weights.add(row * KEYS / 2).cast::<u16>().add(column);
                        convert_to_bf16(to, Avx512::load(from.add(column)));
                        column += Avx512::LANES;
                    }
                }
                add_values::<Avx512, Bf16Pairs>(
                    self.values,
                    head,
                    [key / 2, keys.div_ceil(2)],
                    of_weights,
                    &rows,
                );
                key += keys;
            }
            for row in 0..count {
                let factor = Avx512::splat(1. / rows.total[row]);
                let to = self.output.at(at + row * row_size);
                let mut column = 0;
                while column < size.head_size {
                    let value = Avx512::mul(Avx512::load(sums.add(row * width + column)), factor);
                    let mut rounded = [0; Avx512::LANES];
                    convert_to_bf16(rounded.as_mut_ptr(), value);
                    let left = Avx512::LANES.min(size.head_size - column);
                    to.add(column).copy_from_nonoverlapping(rounded.as_ptr(), left);
                    column += Avx512::LANES;
                }
            }
        }
    }
}
