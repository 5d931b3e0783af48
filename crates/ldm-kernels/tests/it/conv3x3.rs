//! Winograd convolutions.

use ldm_kernels::{Conv3x3, Conv3x3Epilogue, Conv3x3Prologue, ImageSize, Level, OneThread, Threads, conv3x3};
use proptest::prelude::*;

use crate::reference::{self, Reversed, levels, random, relative_error};

const BOUND: f64 = 1e-5;

fn run(
    threads: &dyn Threads,
    level: Level,
    [batch, height, width, channels]: [usize; 4],
    x: &[f32],
    weight: &[f32],
    prologue: Option<Conv3x3Prologue<'_>>,
    epilogue: Conv3x3Epilogue<'_>,
) -> Vec<f32> {
    let size = ImageSize { batch, height, width };
    let mut out = vec![f32::NAN; size.pixels() * weight.len() / (9 * channels)];
    conv3x3(threads, level, Conv3x3 { size, channels, input: x, weight, prologue, epilogue }, &mut out);
    out
}

fn check(size: [usize; 4], k: usize) {
    let (x, weight) = (random(size.iter().product(), 1), random(k * size[3] * 9, 2));
    let expected = reference::conv3x3(size, k, &x, &weight);
    for level in levels() {
        let ours = run(&OneThread, level, size, &x, &weight, None, Conv3x3Epilogue::default());
        let error = relative_error(&ours, &expected);
        assert!(error < BOUND, "{level} {size:?} -> {k}: {error:e}");
    }
}

#[test]
fn odd_sizes_and_channels_agree_with_f64() {
    for (size, k) in [
        ([1, 1, 1, 1], 1),
        ([1, 1, 1, 32], 32),
        ([2, 4, 4, 16], 64),
        ([1, 5, 3, 17], 33),
        ([3, 7, 9, 40], 70),
        ([1, 2, 31, 3], 5),
        ([1, 33, 2, 64], 130),
        ([2, 16, 16, 300], 31), // 5 blocks of input channels
        ([1, 49, 60, 33], 40),  // more tiles than weights are transformed for at once
        ([3, 80, 80, 96], 33),  // several groups of tiles
    ] {
        check(size, k);
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]
    #[test]
    fn random_shapes_agree_with_f64(b in 1..3_usize, h in 1..14_usize, w in 1..14_usize, c in 1..50_usize, k in 1..70_usize) {
        check([b, h, w, c], k);
    }
}

#[test]
fn the_epilogue_is_added() {
    let (size, k) = ([2, 6, 5, 20], 37);
    let (x, weight) = (random(size.iter().product(), 3), random(k * 20 * 9, 4));
    let (bias, image_bias, residual) = (random(k, 5), random(2 * k, 6), random(2 * 30 * k, 7));
    let mut expected = reference::conv3x3(size, k, &x, &weight);
    for (index, value) in expected.iter_mut().enumerate() {
        let (image, channel) = (index / (30 * k), index % k);
        *value += bias[channel] as f64 + image_bias[image * k + channel] as f64 + residual[index] as f64;
    }
    let epilogue =
        Conv3x3Epilogue { bias: Some(&bias), image_bias: Some(&image_bias), residual: Some(&residual) };
    for level in levels() {
        let ours = run(&OneThread, level, size, &x, &weight, None, epilogue);
        let error = relative_error(&ours, &expected);
        assert!(error < BOUND, "{level}: {error:e}");
    }
}

#[test]
fn the_prologue_is_applied_inside_of_the_image_alone() {
    let (size, k) = ([2, 5, 6, 20], 33);
    let (x, weight) = (random(size.iter().product(), 3), random(k * 20 * 9, 4));
    let (scale, shift) = (random(40, 5), random(40, 6));
    let normed: Vec<f32> = x
        .iter()
        .enumerate()
        .map(|(index, &x)| {
            let at = index / 600 * 20 + index % 20;
            let y = x as f64 * scale[at] as f64 + shift[at] as f64;
            (y / (1. + (-y).exp())) as f32
        })
        .collect();
    let expected = reference::conv3x3(size, k, &normed, &weight);
    for level in levels() {
        let prologue = Some(Conv3x3Prologue { scale: &scale, shift: &shift });
        let ours = run(&OneThread, level, size, &x, &weight, prologue, Conv3x3Epilogue::default());
        let error = relative_error(&ours, &expected);
        assert!(error < BOUND, "{level}: {error:e}");
    }
}

#[test]
fn any_number_of_threads_gives_the_same_bytes() {
    // The parts of the output channels differ with the threads, not the sums.
    let (size, k) = ([2, 16, 16, 64], 160);
    let (x, weight) = (random(size.iter().product(), 1), random(k * 64 * 9, 2));
    for level in levels() {
        let one = run(&OneThread, level, size, &x, &weight, None, Conv3x3Epilogue::default());
        let three = run(&Reversed, level, size, &x, &weight, None, Conv3x3Epilogue::default());
        assert_eq!(one, three, "{level}");
    }
}

#[test]
fn nan_and_inf_stay_where_they_are_read() {
    let (size, k) = ([2, 12, 12, 16], 32);
    let weight = random(k * 16 * 9, 2);
    for value in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY] {
        let mut x = random(size.iter().product(), 1);
        x[0] = value; // pixel (0, 0) of image 0
        for level in levels() {
            let out = run(&OneThread, level, size, &x, &weight, None, Conv3x3Epilogue::default());
            assert!(out[..k].iter().all(|value| !value.is_finite()), "{level}");
            assert!(out[12 * 12 * k..].iter().all(|value| value.is_finite()), "{level}: the other image");
            let far = (11 * 12 + 11) * k;
            assert!(out[far..far + k].iter().all(|value| value.is_finite()), "{level}: another tile");
        }
    }
}

/// An image's values do not depend on its neighbors in a batch.
#[test]
fn an_image_is_the_same_alone_and_in_a_batch() {
    let (size, k) = ([19, 8, 8, 64], 64);
    let (x, weight) = (random(size.iter().product(), 1), random(k * 64 * 9, 2));
    for level in levels() {
        let all = run(&OneThread, level, size, &x, &weight, None, Conv3x3Epilogue::default());
        for image in [0, 7, 18] {
            let from = &x[image * 64 * 64..][..64 * 64];
            let one = run(&OneThread, level, [1, 8, 8, 64], from, &weight, None, Conv3x3Epilogue::default());
            assert!(one == all[image * 64 * k..][..64 * k], "{level}: image {image}");
        }
    }
}
