//! Attention.

use ldm_kernels::{AttentionSize, OneThread, attention, attention_bf16, has_bf16_products};
use proptest::prelude::*;

use crate::reference::{self, Reversed, bf16, levels, random, relative_error, widened};

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

/// Against f64 on the same bf16 numbers: the weights and the output are rounded to 8 bits.
fn check_bf16(size: AttentionSize, spread: f32) {
    if !has_bf16_products() {
        return; // the other processors have no such kernel
    }
    let tokens = |length| size.batch * length * size.heads * size.head_size;
    let spread_out: Vec<f32> = random(tokens(size.queries), 1).iter().map(|x| x * spread).collect();
    let [(q, q_), (k, k_), (v, v_)] =
        [spread_out, random(tokens(size.keys), 2), random(tokens(size.keys), 3)].map(|values| bf16(&values));
    let expected = reference::attention(size, [&q_, &k_, &v_]);
    let mut out = vec![0x7fc0; q.len()]; // NaN
    attention_bf16(&OneThread, size, [&q, &k, &v], &mut out);
    let error = relative_error(&widened(&out), &expected);
    assert!(error < 4e-3, "{size:?}: {error:e}");
    let mut again = vec![0x7fc0; q.len()];
    attention_bf16(&Reversed, size, [&q, &k, &v], &mut again);
    assert_eq!(out, again, "the same bytes on any threads");
}

#[test]
fn bf16_agrees_with_f64() {
    for sizes in [
        [1, 1, 1, 1, 1],
        [2, 8, 64, 64, 40],
        [1, 2, 57, 77, 64],
        [2, 3, 113, 300, 80],
        [1, 2, 3, 513, 160],
        [1, 1, 60, 257, 512],
        [1, 5, 9, 10, 7],
        [1, 2, 5, 41, 33],
    ] {
        check_bf16(size(sizes), 1.);
    }
    check_bf16(size([1, 2, 20, 600, 40]), 200.); // scores that overflow an exponential
}

#[test]
fn bf16_nan_stays_in_its_row_and_no_keys_give_zeros() {
    if !has_bf16_products() {
        return;
    }
    let of = size([1, 1, 60, 301, 40]);
    let [q, k, v] =
        [random(60 * 40, 1), random(301 * 40, 2), random(301 * 40, 3)].map(|values| bf16(&values).0);
    let mut q = q;
    q[40 * 3] = 0x7fc0;
    let mut out = vec![0; q.len()];
    attention_bf16(&OneThread, of, [&q, &k, &v], &mut out);
    for (row, values) in widened(&out).chunks(40).enumerate() {
        assert!(values.iter().all(|value| value.is_nan() == (row == 3)), "row {row}");
    }
    let mut out = [0x7fc0; 10];
    attention_bf16(&OneThread, size([1, 1, 2, 0, 5]), [&[1; 10], &[], &[]], &mut out);
    assert_eq!(out, [0; 10]);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]
    #[test]
    fn bf16_of_random_sizes_agrees_with_f64(
        batch in 1..3_usize, heads in 1..4_usize, queries in 1..70_usize, keys in 1..280_usize, head_size in 1..70_usize,
    ) {
        check_bf16(size([batch, heads, queries, keys, head_size]), 3.);
    }
}
