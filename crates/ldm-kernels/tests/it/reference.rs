//! The operations as direct sums in f64, and what the tests share.

use std::sync::Mutex;

use ldm_kernels::{Level, Threads};

/// Values in [−1, 1) from a linear congruential generator.
pub(crate) fn random(count: usize, seed: u64) -> Vec<f32> {
    let mut state = seed.wrapping_mul(0x9E37_79B9_7F4A_7C15).wrapping_add(1);
    let mut next = || {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 40) as f32 / (1 << 23) as f32 - 1.
    };
    (0..count).map(|_| next()).collect()
}

/// The levels of this processor.
pub(crate) fn levels() -> impl Iterator<Item = Level> {
    Level::ALL.into_iter().filter(|level| level.is_available())
}

/// The bits of the nearest bf16 numbers, and these.
pub(crate) fn bf16(values: &[f32]) -> (Vec<u16>, Vec<f32>) {
    let bits = |x: &f32| {
        let bits = x.to_bits();
        if x.is_nan() {
            (bits >> 16 | 1 << 6) as u16
        } else {
            ((bits + 0x7fff + (bits >> 16 & 1)) >> 16) as u16
        }
    };
    let bits: Vec<u16> = values.iter().map(bits).collect();
    let rounded = widened(&bits);
    (bits, rounded)
}

/// The values of bf16 numbers.
pub(crate) fn widened(bits: &[u16]) -> Vec<f32> {
    bits.iter().map(|&bits| f32::from_bits(u32::from(bits) << 16)).collect()
}

/// |a − b| / |b| in the Euclidean norm.
#[track_caller]
pub(crate) fn relative_error(ours: &[f32], theirs: &[f64]) -> f64 {
    assert_eq!(ours.len(), theirs.len());
    let (mut difference, mut norm) = (0., 0.);
    for (&a, &b) in ours.iter().zip(theirs) {
        difference += (a as f64 - b).powi(2);
        norm += b * b;
    }
    (difference / norm.max(1e-300)).sqrt()
}

/// Three threads that take the tasks in reverse.
pub(crate) struct Reversed;

impl Threads for Reversed {
    fn count(&self) -> usize {
        3
    }

    fn run(&self, tasks: usize, task: &(dyn Fn(usize) + Sync)) {
        let left = Mutex::new(tasks);
        std::thread::scope(|scope| {
            for _ in 0..3 {
                scope.spawn(|| {
                    loop {
                        let mut left = left.lock().unwrap();
                        let Some(next) = left.checked_sub(1) else { return };
                        *left = next;
                        drop(left);
                        task(next);
                    }
                });
            }
        });
    }
}

/// A 3x3 convolution, NHWC; `weight` `[K, 3, 3, C]`.
pub(crate) fn conv3x3([b, h, w, c]: [usize; 4], k: usize, x: &[f32], weight: &[f32]) -> Vec<f64> {
    let mut out = vec![0.; b * h * w * k];
    for (index, sum) in out.iter_mut().enumerate() {
        let (pixel, channel_out) = (index / k, index % k);
        let (image, row, column) = (pixel / (h * w), pixel / w % h, pixel % w);
        for dy in 0..3 {
            for dx in 0..3 {
                let (y, x_) = ((row + dy).wrapping_sub(1), (column + dx).wrapping_sub(1));
                if y >= h || x_ >= w {
                    continue;
                }
                for channel in 0..c {
                    let value = x[((image * h + y) * w + x_) * c + channel];
                    *sum += value as f64 * weight[((channel_out * 3 + dy) * 3 + dx) * c + channel] as f64;
                }
            }
        }
    }
    out
}

/// softmax(q kᵀ / √d) v of `[B, L, heads·d]`.
pub(crate) fn attention(size: ldm_kernels::AttentionSize, [q, k, v]: [&[f32]; 3]) -> Vec<f64> {
    let ldm_kernels::AttentionSize { batch, heads, queries, keys, head_size: d } = size;
    let mut out = vec![0.; q.len()];
    for image in 0..batch {
        for head in 0..heads {
            for query in 0..queries {
                let at = |length: usize, token: usize| ((image * length + token) * heads + head) * d;
                let scores: Vec<f64> = (0..keys)
                    .map(|key| {
                        let (q, k) = (&q[at(queries, query)..][..d], &k[at(keys, key)..][..d]);
                        q.iter().zip(k).map(|(a, b)| *a as f64 * *b as f64).sum::<f64>() / (d as f64).sqrt()
                    })
                    .collect();
                let greatest = scores.iter().copied().fold(f64::NEG_INFINITY, f64::max);
                let total: f64 = scores.iter().map(|score| (score - greatest).exp()).sum();
                for (key, score) in scores.iter().enumerate() {
                    let weight = (score - greatest).exp() / total;
                    for column in 0..d {
                        out[at(queries, query) + column] += weight * v[at(keys, key) + column] as f64;
                    }
                }
            }
        }
    }
    out
}
