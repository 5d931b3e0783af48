//! Kernels of bf16 numbers: the bytes of the f32 kernels on the same numbers, rounded.

use ldm_kernels::{
    Conv3x3, Conv3x3Epilogue, Conv3x3Prologue, GroupNormParameters, ImageSize, OneThread, conv3x3,
    conv3x3_bf16, group_norm, group_norm_bf16, group_norm_scale_shift, group_norm_scale_shift_bf16,
};
use proptest::prelude::*;

use crate::reference::{Reversed, bf16, levels, random};

fn check_conv(size: ImageSize, channels: usize, channels_out: usize, all: bool) {
    let mut x = random(size.pixels() * channels, 1);
    x[0] = f32::INFINITY;
    x[channels] = f32::NAN;
    let (x, x_) = bf16(&x);
    let (weight, weight_) = bf16(&random(channels_out * 9 * channels, 2));
    let (residual, residual_) = bf16(&random(size.pixels() * channels_out, 3));
    let [bias, image_bias] = [channels_out, size.batch * channels_out].map(|count| random(count, 4));
    let [scale, shift] = [5, 6].map(|seed| random(size.batch * channels, seed));
    let prologue = all.then_some(Conv3x3Prologue { scale: &scale, shift: &shift });
    let (bias, image_bias) = (all.then_some(&bias[..]), all.then_some(&image_bias[..]));
    let epilogue = Conv3x3Epilogue { bias, image_bias, residual: all.then_some(&residual[..]) };
    let conv = Conv3x3 { size, channels, input: &x, weight: &weight, prologue, epilogue };
    let epilogue = Conv3x3Epilogue { bias, image_bias, residual: all.then_some(&residual_[..]) };
    let exact = Conv3x3 { size, channels, input: &x_, weight: &weight_, prologue, epilogue };
    for level in levels() {
        let mut wide = vec![0.; residual.len()];
        conv3x3(&OneThread, level, exact, &mut wide);
        let mut out = vec![0x7fc1; residual.len()];
        conv3x3_bf16(&Reversed, level, conv, &mut out);
        let is_nan = |bits: u16| bits & 0x7fff > 0x7f80;
        for (index, (&ours, &expected)) in out.iter().zip(&bf16(&wide).0).enumerate() {
            assert!(ours == expected || is_nan(ours) && is_nan(expected), "{level} {size:?}: {index}");
        }
    }
}

#[test]
fn convolutions_are_those_of_f32_rounded() {
    for (height, width, channels, channels_out) in
        [(1, 1, 1, 1), (8, 8, 64, 32), (9, 14, 33, 47), (5, 3, 130, 17), (16, 16, 16, 70)]
    {
        for all in [false, true] {
            check_conv(ImageSize { batch: 2, height, width }, channels, channels_out, all);
        }
    }
}

#[test]
fn norms_are_those_of_f32_rounded() {
    for (batch, pixels, channels, groups) in [(1, 1, 32, 32), (2, 600, 96, 32), (2, 37, 33, 11)] {
        let (x, x_) = bf16(&random(batch * pixels * channels, 1));
        let [weight, bias] = [2, 3].map(|seed| random(channels, seed));
        let parameters = GroupNormParameters { groups, weight: &weight, bias: &bias, eps: 1e-5 };
        for level in levels() {
            let exact = group_norm_scale_shift(&OneThread, level, batch, &x_, parameters);
            assert_eq!(
                group_norm_scale_shift_bf16(&Reversed, level, batch, &x, parameters),
                exact,
                "{level}"
            );
            for silu in [false, true] {
                let (mut wide, mut out) = (vec![0.; x.len()], vec![0x7fc0; x.len()]);
                group_norm(&OneThread, level, batch, &x_, parameters, silu, &mut wide);
                group_norm_bf16(&Reversed, level, batch, &x, parameters, silu, &mut out);
                assert_eq!(out, bf16(&wide).0, "{level} {pixels}");
            }
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(16))]
    #[test]
    fn convolutions_of_random_shapes_are_those_of_f32_rounded(
        height in 1..20_usize, width in 1..20_usize, channels in 1..80_usize, channels_out in 1..80_usize, all: bool,
    ) {
        check_conv(ImageSize { batch: 1, height, width }, channels, channels_out, all);
    }
}
