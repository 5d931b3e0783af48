//! Attention.

use ldm_kernels::{AttentionSize, OneThread, attention};
use proptest::prelude::*;

use crate::reference::{self, Reversed, levels, random, relative_error};

/// With queries in [−spread, spread); scores of hundreds are themselves rounded, and so have a larger `bound`.
fn check(size: AttentionSize, spread: f32, bound: f64) {
    let tokens = |length| size.batch * length * size.heads * size.head_size;
    let q: Vec<f32> = random(tokens(size.queries), 1).iter().map(|x| x * spread).collect();
    let (k, v) = (random(tokens(size.keys), 2), random(tokens(size.keys), 3));
    let expected = reference::attention(size, [&q, &k, &v]);
    for level in levels() {
        let mut out = vec![f32::NAN; q.len()];
        attention(&OneThread, level, size, [&q, &k, &v], &mut out);
        let error = relative_error(&out, &expected);
        assert!(error < bound, "{level} {size:?}: {error:e}");
        let mut again = vec![f32::NAN; q.len()];
        attention(&Reversed, level, size, [&q, &k, &v], &mut again);
        assert_eq!(out, again, "{level}: the same bytes on any threads");
    }
}

fn size([batch, heads, queries, keys, head_size]: [usize; 5]) -> AttentionSize {
    AttentionSize { batch, heads, queries, keys, head_size }
}

#[test]
fn head_sizes_and_lengths_agree_with_f64() {
    for sizes in [
        [1, 1, 1, 1, 1],
        [2, 8, 64, 64, 40],
        [1, 2, 57, 77, 64],
        [2, 3, 113, 300, 80],
        [1, 2, 3, 513, 160],
        [1, 1, 60, 257, 512],
        [1, 5, 9, 10, 7],
        [1, 2, 5, 40, 33],
    ] {
        check(size(sizes), 1., 3e-6);
    }
}

#[test]
fn large_scores_do_not_overflow() {
    check(size([1, 2, 20, 600, 40]), 200., 2e-5);
}

#[test]
fn no_keys_give_zeros() {
    for level in levels() {
        let mut out = vec![f32::NAN; 10];
        attention(&OneThread, level, size([1, 1, 2, 0, 5]), [&[1.; 10], &[], &[]], &mut out);
        assert_eq!(out, [0.; 10]);
    }
}

#[test]
fn nan_stays_in_its_row() {
    let size = size([1, 1, 60, 300, 40]);
    let (mut q, k, v) = (random(60 * 40, 1), random(300 * 40, 2), random(300 * 40, 3));
    q[40 * 3] = f32::NAN;
    for level in levels() {
        let mut out = vec![0.; q.len()];
        attention(&OneThread, level, size, [&q, &k, &v], &mut out);
        for (row, values) in out.chunks(40).enumerate() {
            assert!(values.iter().all(|value| value.is_nan() == (row == 3)), "{level}: row {row}");
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]
    #[test]
    fn random_sizes_agree_with_f64(
        batch in 1..3_usize, heads in 1..4_usize, queries in 1..70_usize, keys in 1..280_usize, head_size in 1..70_usize,
    ) {
        check(size([batch, heads, queries, keys, head_size]), 3., 3e-6);
    }
}
