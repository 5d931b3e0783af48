//! Group normalization.

use ldm_kernels::{GroupNormParameters, OneThread, group_norm};

use crate::reference::{Reversed, levels, random, relative_error};

fn group_norm_f64(
    [batch, pixels, channels, groups]: [usize; 4],
    x: &[f32],
    [weight, bias]: [&[f32]; 2],
    eps: f64,
    silu: bool,
) -> Vec<f64> {
    let size = channels / groups;
    let mut out = vec![0.; x.len()];
    for image in 0..batch {
        for group in 0..groups {
            let places: Vec<usize> = (0..pixels)
                .flat_map(|pixel| {
                    (0..size).map(move |c| (image * pixels + pixel) * channels + group * size + c)
                })
                .collect();
            let count = places.len() as f64;
            let mean = places.iter().map(|&at| x[at] as f64).sum::<f64>() / count;
            let variance = places.iter().map(|&at| (x[at] as f64 - mean).powi(2)).sum::<f64>() / count;
            for at in places {
                let channel = at % channels;
                let y = (x[at] as f64 - mean) / (variance + eps).sqrt() * weight[channel] as f64
                    + bias[channel] as f64;
                out[at] = if silu { y / (1. + (-y).exp()) } else { y };
            }
        }
    }
    out
}

#[test]
fn group_norms_agree_with_f64() {
    for ([batch, pixels, channels, groups], mean) in [
        ([1, 1, 32, 32], 0.),
        ([2, 63, 320, 32], 0.),
        ([1, 1030, 96, 32], 3.),
        ([2, 65, 12, 3], 1.),
        ([1, 700, 64, 32], 1000.),
    ] {
        let x: Vec<f32> = random(batch * pixels * channels, 1).iter().map(|x| x + mean).collect();
        let (weight, bias) = (random(channels, 2), random(channels, 3));
        let parameters = GroupNormParameters { groups, weight: &weight, bias: &bias, eps: 1e-5 };
        for silu in [false, true] {
            let sizes = [batch, pixels, channels, groups];
            let expected = group_norm_f64(sizes, &x, [&weight, &bias], 1e-5, silu);
            for level in levels() {
                let mut out = vec![f32::NAN; x.len()];
                group_norm(&OneThread, level, batch, &x, parameters, silu, &mut out);
                let error = relative_error(&out, &expected);
                // A mean of 1000 leaves 1000·2⁻²⁴ of the input's own values; of one value, its own mean is subtracted after a
                // multiplication by 1/√eps.
                let bound = if mean > 100. {
                    2e-4
                } else if pixels == 1 {
                    2e-5
                } else {
                    2e-6
                };
                assert!(error < bound, "{level} {sizes:?}, mean {mean}: {error:e}");
                let mut again = vec![f32::NAN; x.len()];
                group_norm(&Reversed, level, batch, &x, parameters, silu, &mut again);
                assert_eq!(out, again, "{level}: the same bytes on any threads");
            }
        }
    }
}

#[test]
fn a_norm_of_nan_or_inf_is_nan_in_its_group() {
    let ones = [1.; 64];
    let parameters = GroupNormParameters { groups: 32, weight: &ones, bias: &ones, eps: 1e-5 };
    for wrong in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY] {
        let mut x = random(2 * 10 * 64, 1);
        x[64 + 5] = wrong; // group 2 of image 0
        for level in levels() {
            let mut out = vec![0.; x.len()];
            group_norm(&OneThread, level, 2, &x, parameters, false, &mut out);
            for (at, value) in out.iter().enumerate() {
                assert_eq!(value.is_nan(), at < 640 && at % 64 / 2 == 2, "{level}, {wrong}: value {at}");
            }
        }
    }
}
