//! Linear layers.

use ldm_kernels::{Level, LinearParameters, OneThread, Threads, linear, linear_geglu};

use crate::reference::{Reversed, levels, random, relative_error};

/// `x·weightᵀ + bias` and the sums of the products' absolute values.
fn linear_f64(x: &[f32], parameters: LinearParameters<'_>) -> Vec<f64> {
    let LinearParameters { features, weight, bias } = parameters;
    let rows = x.chunks_exact(features);
    let row = |x: &[f32]| -> Vec<f64> {
        let product = |weight: &[f32]| x.iter().zip(weight).map(|(&a, &b)| a as f64 * b as f64).sum::<f64>();
        let bias = |at: usize| bias.map_or(0., |bias| bias[at] as f64);
        weight.chunks_exact(features).enumerate().map(|(at, weight)| product(weight) + bias(at)).collect()
    };
    rows.flat_map(row).collect()
}

/// x·Φ(x) by the series of erf.
fn gelu_f64(x: f64) -> f64 {
    let z = x / 2_f64.sqrt();
    let (mut term, mut sum) = (z, z);
    for n in 1..200 {
        term *= -z * z / n as f64;
        sum += term / (2 * n + 1) as f64;
    }
    let erf = if z.abs() > 4. { z.signum() } else { sum * 2. / std::f64::consts::PI.sqrt() };
    0.5 * x * (1. + erf)
}

/// Sizes `[rows, features in, features out]`: no vector width divides some; one has more features than are packed at once, and
/// one more rows and panels than a task takes.
const SIZES: [[usize; 3]; 8] = [
    [1, 1, 1],
    [3, 17, 5],
    [15, 33, 31],
    [56, 16, 32],
    [57, 40, 33],
    [130, 1100, 70],
    [20, 2500, 64],
    [700, 320, 330],
];

#[test]
fn products_agree_with_f64() {
    for [rows, features, features_out] in SIZES {
        let (x, weight) = (random(rows * features, 1), random(features_out * features, 2));
        let (bias, residual) = (random(features_out, 3), random(rows * features_out, 4));
        for (bias, residual) in
            [(None, None), (Some(&bias), None), (None, Some(&residual)), (Some(&bias), Some(&residual))]
        {
            let parameters = LinearParameters { features, weight: &weight, bias: bias.map(Vec::as_slice) };
            let mut expected = linear_f64(&x, parameters);
            for (sum, residual) in expected.iter_mut().zip(residual.into_iter().flatten()) {
                *sum += *residual as f64;
            }
            for level in levels() {
                let compute = |threads: &dyn Threads| {
                    let mut out = vec![f32::NAN; rows * features_out];
                    linear(threads, level, &x, parameters, residual.map(Vec::as_slice), &mut out);
                    out
                };
                let out = compute(&OneThread);
                let error = relative_error(&out, &expected);
                assert!(error < 1e-6, "{level} {rows}x{features}x{features_out}: {error:e}");
                assert_eq!(out, compute(&Reversed), "{level}: the same bytes on any threads");
            }
        }
    }
}

#[test]
fn a_gated_layer_is_the_layer_and_its_gate() {
    for [rows, features, features_out] in SIZES {
        let (x, weight) = (random(rows * features, 1), random(2 * features_out * features, 2));
        let bias = random(2 * features_out, 3);
        for bias in [None, Some(bias.as_slice())] {
            let parameters = LinearParameters { features, weight: &weight, bias };
            let both = linear_f64(&x, parameters);
            let expected: Vec<f64> = both
                .chunks_exact(2 * features_out)
                .flat_map(|row| (0..features_out).map(|at| row[at] * gelu_f64(row[features_out + at])))
                .collect();
            for level in levels() {
                let compute = |threads: &dyn Threads| {
                    let mut out = vec![f32::NAN; rows * features_out];
                    linear_geglu(threads, level, &x, parameters, &mut out);
                    out
                };
                let out = compute(&OneThread);
                let error = relative_error(&out, &expected);
                assert!(error < 2e-6, "{level} {rows}x{features}x{features_out}: {error:e}");
                assert_eq!(out, compute(&Reversed), "{level}: the same bytes on any threads");
            }
        }
    }
}

/// A row's values do not depend on its neighbors, so that an image is the same alone and in a batch.
#[test]
fn a_row_is_the_same_among_others() {
    let (features, features_out) = (70, 50);
    let (x, weight) = (random(100 * features, 1), random(features_out * features, 2));
    let parameters = LinearParameters { features, weight: &weight, bias: None };
    for level in levels() {
        let compute = |x: &[f32]| {
            let mut out = vec![f32::NAN; x.len() / features * features_out];
            linear(&OneThread, level, x, parameters, None, &mut out);
            out
        };
        let all = compute(&x);
        for row in [0, 13, 57, 99] {
            let alone = compute(&x[row * features..][..features]);
            assert_eq!(alone, all[row * features_out..][..features_out], "{level}: row {row}");
        }
    }
}

#[test]
fn nan_and_inf_reach_their_row_or_feature_and_no_other() {
    let [rows, features, features_out] = [30, 20, 40];
    for wrong in [f32::NAN, f32::INFINITY] {
        let (mut x, mut weight) = (random(rows * features, 1), random(features_out * features, 2));
        x[7 * features + 3] = wrong;
        weight[33 * features + 5] = wrong;
        let parameters = LinearParameters { features, weight: &weight, bias: None };
        for level in levels() {
            let mut out = vec![0.; rows * features_out];
            linear(&OneThread, level, &x, parameters, None, &mut out);
            for (at, value) in out.iter().enumerate() {
                let expected = at / features_out == 7 || at % features_out == 33;
                assert_eq!(!value.is_finite(), expected, "{level}, {wrong}: value {at}");
            }
        }
    }
}

#[test]
fn nothing_in_is_nothing_out() {
    let none = LinearParameters { features: 4, weight: &[], bias: None };
    let parameters = LinearParameters { features: 4, weight: &[1.; 12], bias: None };
    linear(&OneThread, Level::Scalar, &[1.; 8], none, None, &mut []);
    linear(&OneThread, Level::Scalar, &[], parameters, None, &mut []);
    linear_geglu(&OneThread, Level::Scalar, &[1.; 8], none, &mut []);
}
