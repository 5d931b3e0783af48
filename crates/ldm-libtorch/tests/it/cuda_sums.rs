//! The sums and GEGLU of CUDA on the emulator, against their definitions; and the emulator's rounding against libtorch's.

use ldm_libtorch::cuda_kernels::{BiasExtras, GpuLimits, bias_add, geglu};
use ldm_libtorch::{Generator, gradients, is_channels_last, to_channels_last};
use tch::{Device, Kind, Tensor};

use crate::cuda_norm::{SPLIT, assert_near, emulated, tolerance};

fn leaf(of: &Tensor, kind: Kind) -> Tensor {
    of.to_dtype(kind, false, true).set_requires_grad(true)
}

#[track_caller]
fn check_sum(size: [i64; 4], kind: Kind, parameters: Kind, given: [bool; 3], limits: GpuLimits) {
    let [batch, channels, ..] = size;
    let mut generator = Generator::new(5);
    let mut draw = |size: &[i64], kind: Kind| generator.randn(size, Kind::Float).to_kind(kind);
    let maps = [0, 1].map(|_| to_channels_last(&draw(&size, kind)));
    let biases = [draw(&[channels], parameters), draw(&[batch, channels], parameters)];
    let all = [&maps[0], &biases[0], &biases[1], &maps[1]];
    let used = |index: usize| index == 0 || given[index - 1];
    let name = format!("{size:?} {kind:?} {parameters:?} {given:?}");

    let ours = || {
        let inputs = all.map(|of| leaf(of, of.kind()));
        let at = |index: usize| used(index).then_some(&inputs[index]);
        let extras = BiasExtras { channel_bias: at(1), image_bias: at(2), residual: at(3) };
        let y = bias_add(&inputs[0], extras).unwrap_or_else(|| panic!("{name} is served"));
        let by: Vec<_> = (0..4).filter_map(at).collect();
        let found = gradients(&[&y.square().sum(Kind::Float)], &by).unwrap();
        (y.detach(), found)
    };
    let Some((y, found)) = emulated(limits, 0, ours) else { return };
    assert!(is_channels_last(&y) && y.kind() == kind);

    let inputs = all.map(|of| leaf(of, Kind::Double));
    let over_pixels = |of: &Tensor| of.unsqueeze(-1).unsqueeze(-1);
    let mut sum = inputs[0].shallow_clone();
    for index in (1..4).filter(|&index| used(index)) {
        sum = if index == 3 { sum + &inputs[3] } else { sum + over_pixels(&inputs[index]) };
    }
    assert_near(&name, &y, &sum, tolerance(kind));
    let by: Vec<_> = (0..4).filter(|&index| used(index)).map(|index| &inputs[index]).collect();
    let expected = gradients(&[&sum.square().sum(Kind::Double)], &by).unwrap();
    for (found, expected) in found.iter().zip(&expected) {
        // The gradient of the squares has y's rounding too.
        assert_near(&name, found, expected, 2. * tolerance(kind).max(tolerance(found.kind())));
    }
}

#[test]
fn sums_equal_their_definition() {
    for size in [[2, 64, 4, 4], [1, 5, 3, 3], [3, 1, 1, 1], [2, 320, 3, 5], [1, 2560, 2, 1], [1, 8, 50, 41]] {
        for kind in [Kind::Float, Kind::BFloat16, Kind::Half] {
            for limits in [GpuLimits::SM_90, SPLIT] {
                check_sum(size, kind, kind, [true; 3], limits);
            }
        }
    }
    for bits in 1..8 {
        let given = [0, 1, 2].map(|bit| bits >> bit & 1 == 1);
        check_sum([2, 24, 3, 3], Kind::BFloat16, Kind::Float, given, GpuLimits::SM_80);
    }
}

/// x·gelu(gate) with Φ by the error function of libtorch in f64.
fn geglu_reference(x: &Tensor) -> Tensor {
    let halves = x.chunk(2, -1);
    let phi = ((&halves[1] / 2_f64.sqrt()).erf() + 1.) * 0.5;
    &halves[0] * &halves[1] * phi
}

#[test]
fn geglu_equals_its_definition() {
    for size in [vec![1, 2], vec![3, 7, 88], vec![2, 2560], vec![5, 1, 30], vec![700, 16]] {
        for kind in [Kind::Float, Kind::BFloat16, Kind::Half] {
            let x = (Generator::new(1).randn(&size, Kind::Float) * 2.).to_kind(kind);
            let ours = || {
                let x = leaf(&x, kind);
                let y = geglu(&x).unwrap_or_else(|| panic!("{size:?} is served"));
                let sum = y.sum(Kind::Float);
                (y.detach(), gradients(&[&sum], &[&x]).unwrap().remove(0))
            };
            let Some((y, dx)) = emulated(GpuLimits::SM_90, 0, ours) else { return };
            let wide = leaf(&x, Kind::Double);
            let expected = geglu_reference(&wide);
            assert_near(&format!("{size:?} {kind:?}"), &y, &expected, tolerance(kind));
            let expected = gradients(&[&expected.sum(Kind::Double)], &[&wide]).unwrap().remove(0);
            assert_near(&format!("{size:?} {kind:?} dx"), &dx, &expected, tolerance(kind));
        }
    }
}

#[test]
fn gates_far_from_zero_are_exact() {
    let x = Tensor::from_slice(&[3_f32, 40., 3., -40., 3., f32::INFINITY, 3., f32::NAN]).view([4, 2]);
    let Some(y) = emulated(GpuLimits::SM_90, 0, || geglu(&x).unwrap()) else { return };
    let y = Vec::<f32>::try_from(y.view(-1)).unwrap();
    assert_eq!(y[..3], [120., 0., f32::INFINITY]);
    assert!(y[3].is_nan());
}

#[test]
fn rows_that_the_kernels_do_not_take_are_libtorchs() {
    let x = Generator::new(0).randn(&[4, 6], Kind::Float);
    let Some(served) = emulated(GpuLimits::SM_90, 0, || {
        [x.shallow_clone(), x.narrow(1, 0, 5).contiguous(), x.narrow(1, 0, 4), x.to_kind(Kind::Double)]
            .map(|x| geglu(&x).is_some())
    }) else {
        return;
    };
    assert_eq!(served, [true, false, false, false]);
    let map = to_channels_last(&Generator::new(0).randn(&[1, 8, 4, 4], Kind::Float));
    let residuals = [map.contiguous(), map.to_kind(Kind::BFloat16), map.narrow(1, 0, 4)];
    for residual in &residuals {
        let extras = BiasExtras { residual: Some(residual), ..BiasExtras::default() };
        let served = emulated(GpuLimits::SM_90, 0, || bias_add(&map, extras).is_some());
        assert_eq!(served, Some(false));
    }
}

/// Every number of 16 bits: read and written again, and sums of two, which round with ties.
#[test]
fn the_emulator_rounds_as_libtorch() {
    let all: Vec<i16> = (i16::MIN..=i16::MAX).collect();
    for kind in [Kind::Half, Kind::BFloat16] {
        let of_bits = |bits: &Tensor| to_channels_last(&bits.view_dtype(kind).view([1, 256, 256, 1]));
        let numbers = Tensor::from_slice(&all);
        let (x, other) = (of_bits(&numbers), of_bits(&numbers.roll([12345], [0])));
        let Some([same, sum]) = emulated(GpuLimits::SM_90, 0, || {
            let with = |residual| BiasExtras { residual, ..BiasExtras::default() };
            [None, Some(&other)].map(|residual| bias_add(&x, with(residual)).unwrap())
        }) else {
            return;
        };
        let expected = (x.to_kind(Kind::Float) + other.to_kind(Kind::Float)).to_kind(kind);
        for (found, expected) in [(same, x), (sum, expected)] {
            let numbers = |of: &Tensor| of.to_kind(Kind::Float).to_device(Device::Cpu);
            let [found, expected] = [numbers(&found), numbers(&expected)];
            let both_nan = found.isnan().logical_and(&expected.isnan());
            assert!(found.eq_tensor(&expected).logical_or(&both_nan).all().int64_value(&[]) == 1, "{kind:?}");
        }
    }
}
