//! Softmax attention, block by block.
//!
//! A task takes [`QUERIES`] rows of one head, goes through the keys in blocks, and keeps a running maximum and sum for
//! each row, so that scores never leave the cache (Milakov & Gimelshein 2018; Dao et al. 2022, algorithm 1).

mod bf16;
mod pack;

use crate::Level;
use crate::buffer::{Output, workspace};
use crate::product::{F32, Multiply, Panel, panel};
use crate::simd::{Simd, SimdKernel, run};
use crate::threads::Threads;
pub use bf16::{attention_bf16, has_bf16_products};
use pack::{KeyPanels, ValuePanels, pack_keys, pack_values, value_vectors};

/// Sizes of an attention.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct AttentionSize {
    /// Images.
    pub batch: usize,
    /// Heads.
    pub heads: usize,
    /// Queries of an image, L.
    pub queries: usize,
    /// Keys and values of an image, S.
    pub keys: usize,
    /// Values of a token in one head, d.
    pub head_size: usize,
}

impl AttentionSize {
    /// Checks the lengths of q, k, v and the output.
    fn check(&self, [q, k, v, output]: [usize; 4]) {
        let width = self.heads * self.head_size;
        assert_eq!(q, self.batch * self.queries * width, "q [B, L, heads·d]");
        assert_eq!(k, self.batch * self.keys * width, "k [B, S, heads·d]");
        assert_eq!(v, k, "v [B, S, heads·d]");
        assert_eq!(output, q, "output [B, L, heads·d]");
    }

    /// The place of a row of a head in q.
    #[inline(always)]
    fn query(&self, head: usize, row: usize) -> usize {
        ((head / self.heads) * self.queries + row) * self.heads * self.head_size
            + head % self.heads * self.head_size
    }
}

/// Query rows of a task.
const QUERIES: usize = 56;
/// Keys of a block: its scores, `[QUERIES, KEYS]`, have 28 KB.
const KEYS: usize = 128;

/// softmax(q kᵀ / √d) v over heads (Vaswani et al. 2017, eq. 1).
///
/// `q` and `output` are `[B, L, heads·d]`, `k` and `v` `[B, S, heads·d]`: the layout of linear layers, so that no head is
/// copied.
///
/// # Panics
/// When a slice does not have the size that `size` requires, or `level` is not available.
pub fn attention(
    threads: &dyn Threads,
    level: Level,
    size: AttentionSize,
    [q, k, v]: [&[f32]; 3],
    output: &mut [f32],
) {
    assert!(level.is_available(), "{level} is not available on this processor");
    size.check([q.len(), k.len(), v.len(), output.len()]);
    if output.is_empty() {
        return;
    }
    if size.keys == 0 {
        return output.fill(0.); // an empty sum
    }
    let heads = size.batch * size.heads;
    let mut keys = KeyPanels::new(level, size);
    let mut values = ValuePanels::new(level, size);
    let packed = [Output::new(keys.buffer.as_mut_slice()), Output::new(values.buffer.as_mut_slice())];
    threads.run(heads, &|head| {
        // SAFETY: each head has its own panels.
        unsafe {
            pack_keys::<_, 1>(size, k, head, packed[0].at(head * keys.head), keys.width);
            pack_values::<_, 1>(size, v, head, packed[1].at(head * values.head), values.lanes);
        }
    });
    let blocks = size.queries.div_ceil(QUERIES);
    let kernel = QueryBlocks { size, q, keys: &keys, values: &values, output: Output::new(output), blocks };
    threads.run(heads * blocks, &|task| {
        // SAFETY: the level is available (above), and the task runs once.
        unsafe { run(level, &kernel, task) }
    });
}

struct QueryBlocks<'a> {
    size: AttentionSize,
    q: &'a [f32],
    keys: &'a KeyPanels,
    values: &'a ValuePanels,
    /// A task writes its query rows of its head.
    output: Output,
    /// Query blocks of a head.
    blocks: usize,
}

/// The running softmax of a block of queries.
struct Rows {
    /// `[QUERIES, KEYS]`: scores, then their exponentials.
    scores: *mut f32,
    /// `[QUERIES, padded d]`: the weighted sum of values.
    sums: *mut f32,
    width: usize,
    /// Factor of the scores, 1 where the queries have it already.
    factor: f32,
    greatest: [f32; QUERIES],
    total: [f32; QUERIES],
}

impl SimdKernel for QueryBlocks<'_> {
    #[inline(always)]
    unsafe fn task<S: Simd>(&self, task: usize) {
        let size = self.size;
        let (head, block) = (task / self.blocks, task % self.blocks);
        let first = block * QUERIES;
        let count = QUERIES.min(size.queries - first);
        let width = self.values.width;
        let mut workspace = workspace(QUERIES * (KEYS + width + size.head_size));
        let scores = workspace.as_mut_ptr();
        let sums = scores.wrapping_add(QUERIES * KEYS);
        let queries = sums.wrapping_add(QUERIES * width);
        let row_size = size.heads * size.head_size;
        let at = size.query(head, first);
        let mut rows = Rows::new(scores, sums, width, 1.);
        // SAFETY: the workspace has room for the three blocks; the rest is each function's promise.
        unsafe {
            // The factor of the scores is applied to the queries, which are fewer.
            let factor = 1. / (size.head_size as f32).sqrt();
            for row in 0..count {
                for column in 0..size.head_size {
                    let value = self.q[at + row * row_size + column] * factor;
                    queries.add(row * size.head_size + column).write(value);
                }
            }
            let mut key = 0;
            while key < size.keys {
                let keys = KEYS.min(size.keys - key);
                let of_queries = Operand { at: queries, stride: size.head_size, rows: count };
                score_block::<S, F32>(self.keys, head, key, keys, of_queries, scores);
                rows.exponentials::<S>(count, keys, key == 0);
                let weights = Operand { at: scores.cast_const(), stride: KEYS, rows: count };
                add_values::<S, F32>(self.values, head, [key, keys], weights, &rows);
                key += keys;
            }
            for row in 0..count {
                let factor = S::splat(1. / rows.total[row]);
                let (from, to) = (sums.add(row * width), self.output.at(at + row * row_size));
                let mut column = 0;
                while column < size.head_size {
                    let value = S::mul(S::load(from.add(column)), factor);
                    S::store_up_to(to.add(column), value, size.head_size - column);
                    column += S::LANES;
                }
            }
        }
    }
}

/// The left operand of a product: rows of f32 values, or of pairs of bf16.
#[derive(Clone, Copy)]
struct Operand {
    at: *const f32,
    stride: usize,
    rows: usize,
}

/// `scores[rows, count] = queries kᵀ` for `count` keys from `key` on.
#[inline(always)]
unsafe fn score_block<S: Simd, T: Multiply<S>>(
    keys: &KeyPanels,
    head: usize,
    key: usize,
    count: usize,
    queries: Operand,
    scores: *mut f32,
) {
    let mut done = 0;
    while done < count {
        // SAFETY: panels are padded to whole vectors, and so is the row of scores.
        unsafe {
            panel::<S, T, 2>(Panel {
                a: queries.at,
                a_stride: queries.stride,
                rows: queries.rows,
                b: keys.panel(head, key + done),
                depth: keys.head_size,
                c: scores.add(done),
                c_stride: KEYS,
                accumulate: false,
            });
        }
        done += 2 * S::LANES;
    }
}

/// Adds the values of `depth` keys from `first` on, or of as many pairs of keys, weighted, to the sums.
#[inline(always)]
unsafe fn add_values<S: Simd, T: Multiply<S>>(
    values: &ValuePanels,
    head: usize,
    [first, depth]: [usize; 2],
    weights: Operand,
    rows: &Rows,
) {
    let mut vector = 0;
    for vectors in value_vectors(values.width / S::LANES) {
        let block = Panel {
            a: weights.at,
            a_stride: weights.stride,
            rows: weights.rows,
            b: values.panel(head, vector, vectors, first),
            depth,
            c: rows.sums.wrapping_add(vector * S::LANES),
            c_stride: rows.width,
            accumulate: first > 0,
        };
        // SAFETY: panels are padded to whole vectors, and so is a row of the sums.
        unsafe {
            match vectors {
                1 => panel::<S, T, 1>(block),
                2 => panel::<S, T, 2>(block),
                _ => panel::<S, T, 3>(block),
            }
        }
        vector += vectors;
    }
}

impl Rows {
    fn new(scores: *mut f32, sums: *mut f32, width: usize, factor: f32) -> Self {
        Self { scores, sums, width, factor, greatest: [f32::NEG_INFINITY; QUERIES], total: [0.; QUERIES] }
    }

    /// Turns scores into exponentials relative to the running maximum, and rescales what was summed by an older one.
    #[inline(always)]
    unsafe fn exponentials<S: Simd>(&mut self, count: usize, keys: usize, first: bool) {
        // SAFETY: arithmetic alone.
        let factor = unsafe { S::splat(self.factor) };
        for row in 0..count {
            let scores = self.scores.wrapping_add(row * KEYS);
            // SAFETY: `keys` scores of a row, padded to whole vectors, and a row of sums.
            unsafe {
                let mut greatest = S::splat(f32::NEG_INFINITY);
                let mut key = 0;
                while key + S::LANES <= keys {
                    greatest = S::max(greatest, S::load(scores.add(key)));
                    key += S::LANES;
                }
                let mut greatest = S::greatest(greatest).max(self.greatest[row]);
                while key < keys {
                    greatest = greatest.max(*scores.add(key));
                    key += 1;
                }
                let shift = S::splat(greatest);
                let mut total = S::splat(0.);
                let mut key = 0;
                while key + S::LANES <= keys {
                    let value = S::exp(S::mul(S::sub(S::load(scores.add(key)), shift), factor));
                    S::store(scores.add(key), value);
                    total = S::add(total, value);
                    key += S::LANES;
                }
                let mut total = S::sum(total);
                if key < keys {
                    let value = S::exp(S::mul(S::sub(S::load(scores.add(key)), shift), factor));
                    S::store(scores.add(key), value);
                    while key < keys {
                        total += *scores.add(key);
                        key += 1;
                    }
                }
                if first {
                    self.total[row] = total;
                } else {
                    let rescale = S::exp(S::mul(S::splat(self.greatest[row] - greatest), factor));
                    self.total[row] = self.total[row] * S::greatest(rescale) + total;
                    if greatest != self.greatest[row] {
                        let mut column = 0;
                        while column < self.width {
                            let at = self.sums.add(row * self.width + column);
                            S::store(at, S::mul(S::load(at), rescale));
                            column += S::LANES;
                        }
                    }
                }
                self.greatest[row] = greatest;
            }
        }
    }
}
