//! The group norm of CUDA on the emulator, against its definition in f64.

use ldm_libtorch::cuda_kernels::{GpuLimits, NormExtras, group_norm, with_emulated_gpu};
use ldm_libtorch::kernels::GroupNormTensors;
use ldm_libtorch::{Generator, autocast, gradients, is_channels_last, set_deterministic, to_channels_last};
use proptest::prelude::*;
use tch::{Device, Kind, Tensor};

/// Without room for a slab, and with so many multiprocessors that an image is cut into parts of few pixels.
pub(crate) const SPLIT: GpuLimits = GpuLimits { multiprocessors: 1000, shared_bytes: 0 };

/// Relative L2 of one rounding to a dtype, with room for f32 sums.
pub(crate) fn tolerance(kind: Kind) -> f64 {
    match kind {
        Kind::Float => 3e-6,
        Kind::Half => 4e-4,
        Kind::BFloat16 => 3e-3,
        other => panic!("{other:?}"),
    }
}

#[track_caller]
pub(crate) fn assert_near(name: &str, found: &Tensor, expected: &Tensor, tolerance: f64) {
    assert_near_by(name, found, expected, expected, tolerance);
}

/// [`assert_near`], relative to `terms` if they are larger: what was added and cancels.
#[track_caller]
fn assert_near_by(name: &str, found: &Tensor, expected: &Tensor, terms: &Tensor, tolerance: f64) {
    let (found, expected) = (found.to_kind(Kind::Double), expected.to_kind(Kind::Double));
    assert_eq!(found.size(), expected.size(), "{name}");
    let scale = [&expected, terms].map(|of| of.norm().double_value(&[])).into_iter().fold(1e-3, f64::max);
    let difference = (&found - &expected).norm().double_value(&[]) / scale;
    assert!(
        difference <= tolerance,
        "{name}: relative L2 {difference:.2e}, expected at most {tolerance:.1e}"
    );
}

/// Runs `body` on an emulated GPU whose new tensors are NaN before a kernel writes them; none in release builds.
#[allow(clippy::print_stderr, reason = "a test that skips reports it")]
pub(crate) fn emulated<T>(limits: GpuLimits, order: u64, body: impl FnOnce() -> T) -> Option<T> {
    struct Deterministic;
    impl Drop for Deterministic {
        fn drop(&mut self) {
            set_deterministic(false);
        }
    }
    set_deterministic(true); // libtorch then fills new memory with NaN
    let _off = Deterministic;
    let result = with_emulated_gpu(limits, order, body);
    if result.is_none() {
        eprintln!("skipped: the emulator is in debug builds alone");
    }
    result
}

#[derive(Debug, Clone, Copy)]
struct NormCase {
    size: [i64; 4],
    groups: i64,
    kind: Kind,
    /// The dtype of everything but the map.
    parameters: Kind,
    limits: GpuLimits,
    /// Channel shift, image shift, scale and shift.
    extras: [bool; 3],
    silu: bool,
    eps: f64,
    seed: u64,
}

const PLAIN: NormCase = NormCase {
    size: [2, 64, 8, 8],
    groups: 32,
    kind: Kind::Float,
    parameters: Kind::Float,
    limits: GpuLimits::SM_90,
    extras: [true; 3],
    silu: true,
    eps: 1e-5,
    seed: 0,
};

impl NormCase {
    /// x, weight, bias, then the shifts.
    fn inputs(self) -> Vec<Option<Tensor>> {
        let [batch, channels, ..] = self.size;
        let mut generator = Generator::new(self.seed);
        let mut draw = |size: &[i64], kind: Kind| generator.randn(size, Kind::Float).to_kind(kind);
        let x = to_channels_last(&(draw(&self.size, Kind::Float) * 1.5 + 0.7)).to_kind(self.kind);
        let weight = (draw(&[channels], Kind::Float) * 0.3 + 1.).to_kind(self.parameters);
        let bias = draw(&[channels], self.parameters);
        let sizes = [vec![channels], vec![batch, channels], vec![batch, 2 * channels]];
        let shifts = sizes.iter().zip(self.extras).map(|(size, is)| is.then(|| draw(size, self.parameters)));
        [x, weight, bias].map(Some).into_iter().chain(shifts.collect::<Vec<_>>()).collect()
    }

    fn ours(self, inputs: &[Option<Tensor>]) -> Tensor {
        let at = |index: usize| inputs[index].as_ref();
        let [weight, bias] = [1, 2].map(|index| at(index).unwrap());
        let extras =
            NormExtras { channel_shift: at(3), image_shift: at(4), scale_shift: at(5), silu: self.silu };
        let of = GroupNormTensors { groups: self.groups, weight, bias, eps: self.eps };
        group_norm(at(0).unwrap(), of, extras).unwrap_or_else(|| panic!("{self:?} is served"))
    }

    /// The definition, operation by operation.
    fn reference(self, inputs: &[Option<Tensor>]) -> Tensor {
        self.reference_of(inputs, |statistic| statistic)
    }

    /// The definition without the dependence of mean and variance on the input: its gradients are the terms from which those
    /// of a norm are subtracted.
    fn with_constant_statistics(self, inputs: &[Option<Tensor>]) -> Tensor {
        self.reference_of(inputs, |statistic| statistic.detach())
    }

    fn reference_of(self, inputs: &[Option<Tensor>], statistic: impl Fn(Tensor) -> Tensor) -> Tensor {
        let [batch, channels, height, width] = self.size;
        let wide = |index: usize| inputs[index].as_ref().map(|of| of.to_kind(Kind::Double));
        let over_pixels = |of: Tensor| of.unsqueeze(-1).unsqueeze(-1);
        let mut x = wide(0).unwrap();
        for shift in [wide(3), wide(4)].into_iter().flatten() {
            x = &x + over_pixels(shift);
        }
        let groups = x.reshape([batch, self.groups, -1]);
        let mean = statistic(groups.mean_dim(2, true, Kind::Double));
        let variance = statistic((&groups - &mean).square().mean_dim(2, true, Kind::Double));
        let normed =
            ((groups - mean) / (variance + self.eps).sqrt()).reshape([batch, channels, height, width]);
        let mut n = normed * over_pixels(wide(1).unwrap()) + over_pixels(wide(2).unwrap());
        if let Some(scale_shift) = wide(5) {
            let halves = over_pixels(scale_shift).chunk(2, 1);
            n = n * (&halves[0] + 1.) + &halves[1];
        }
        if self.silu { &n * n.sigmoid() } else { n }
    }

    /// The result, then the gradient of each input.
    fn derive(self, wide: bool, forward: impl Fn(Self, &[Option<Tensor>]) -> Tensor) -> Vec<Tensor> {
        let kind = |of: &Tensor| if wide { Kind::Double } else { of.kind() };
        let leaf = |of: &Tensor| of.to_dtype(kind(of), false, true).set_requires_grad(true);
        let inputs: Vec<_> = self.inputs().iter().map(|of| of.as_ref().map(leaf)).collect();
        let y = forward(self, &inputs);
        let dy = Generator::new(self.seed + 1).randn(&self.size, Kind::Float).to_kind(self.kind);
        let sum = (&y * dy.to_kind(y.kind())).sum(y.kind());
        let by: Vec<&Tensor> = inputs.iter().flatten().collect();
        let mut all = gradients(&[&sum], &by).unwrap();
        all.insert(0, y.detach());
        all
    }

    #[track_caller]
    fn check(self) {
        let Some(found) = emulated(self.limits, 0, || self.derive(false, Self::ours)) else { return };
        let expected = self.derive(true, Self::reference);
        assert!(is_channels_last(&found[0]) && is_channels_last(&found[1]), "{self:?}");
        assert_eq!(found[0].kind(), self.kind);
        let terms = self.derive(true, Self::with_constant_statistics);
        let names = ["y", "d x", "d weight", "d bias", "d shift", "d shift", "d shift"];
        for (((found, expected), terms), name) in found.iter().zip(&expected).zip(&terms).zip(names) {
            // A norm removes much of a shift before it, all of it from a group of one channel, and all but the sign of a group
            // of two values: the gradient is a difference of terms that may be much larger, by the inverse deviation.
            let factor = if name == "y" { 1. } else { 4. };
            let name = format!("{self:?}: {name}");
            assert_near_by(&name, found, expected, terms, factor * tolerance(found.kind()));
        }
    }
}

#[test]
fn sizes_of_networks_and_odd_ones_equal_the_definition() {
    let sizes = [
        ([2, 64, 8, 8], 32),
        ([1, 32, 2, 1], 32),  // one channel a group
        ([2, 320, 5, 3], 32), // 10 channels a group: no multiple of a load
        ([1, 96, 7, 9], 32),  // 3
        ([3, 160, 1, 2], 32), // 5
        ([2, 33, 4, 5], 3),   // no vector divides the channels
        ([1, 12, 6, 1], 4),
        ([2, 1280, 2, 2], 32),  // 40
        ([1, 2560, 1, 3], 32),  // 80
        ([1, 128, 21, 33], 32), // many parts
        ([1, 6, 3, 3], 1),      // a layer norm
    ];
    for (size, groups) in sizes {
        for limits in [GpuLimits::SM_90, SPLIT] {
            NormCase { size, groups, limits, ..PLAIN }.check();
        }
    }
}

#[test]
fn dtypes_and_their_mixtures_equal_the_definition() {
    for kind in [Kind::Float, Kind::BFloat16, Kind::Half] {
        for parameters in [Kind::Float, Kind::BFloat16, Kind::Half] {
            for limits in [GpuLimits::SM_90, SPLIT] {
                NormCase { size: [2, 160, 5, 4], kind, parameters, limits, ..PLAIN }.check();
            }
        }
    }
}

#[test]
fn each_extra_may_be_absent() {
    for bits in 0..16 {
        let extras = [0, 1, 2].map(|bit| bits >> bit & 1 == 1);
        let silu = bits >> 3 == 1;
        NormCase { size: [2, 96, 3, 4], extras, silu, ..PLAIN }.check();
        NormCase { size: [2, 96, 3, 4], extras, silu, limits: SPLIT, kind: Kind::BFloat16, ..PLAIN }.check();
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 48, ..ProptestConfig::default() })]

    #[test]
    fn random_sizes_equal_the_definition(
        batch in 1_i64..4, groups in 1_i64..7, channels in 1_i64..13, height in 1_i64..12, width in 1_i64..12,
        kind in prop::sample::select(vec![Kind::Float, Kind::BFloat16, Kind::Half]),
        parameters in prop::sample::select(vec![Kind::Float, Kind::BFloat16, Kind::Half]),
        shared_bytes in prop::sample::select(vec![0_i64, 20 << 10, 227 << 10]), multiprocessors in 1_i64..200,
        extras in any::<[bool; 3]>(), silu in any::<bool>(), seed in 0_u64..1000,
    ) {
        // Two values and more: the deviation of one is 0, and its gradient all rounding.
        prop_assume!(channels * height * width > 1);
        let limits = GpuLimits { multiprocessors, shared_bytes };
        let size = [batch, groups * channels, height, width];
        NormCase { size, groups, kind, parameters, limits, extras, silu, eps: 1e-5, seed }.check();
    }
}

#[test]
fn a_group_of_one_value_is_its_bias() {
    let case = NormCase { size: [2, 32, 1, 1], silu: false, extras: [false; 3], ..PLAIN };
    for limits in [GpuLimits::SM_90, SPLIT] {
        let inputs = case.inputs();
        let Some(y) = emulated(limits, 0, || case.ours(&inputs)) else { return };
        let bias = inputs[2].as_ref().unwrap().view([1, 32, 1, 1]).expand_as(&y);
        assert!(y.equal(&bias));
    }
}

/// The same result whichever thread runs first: no barrier is missing, and no sum depends on timing.
#[test]
fn results_do_not_depend_on_the_order_of_threads() {
    for limits in [GpuLimits::SM_90, SPLIT] {
        for kind in [Kind::Float, Kind::BFloat16] {
            let case = NormCase { size: [2, 96, 9, 7], kind, limits, ..PLAIN };
            let Some(first) = emulated(limits, 0, || case.derive(false, NormCase::ours)) else { return };
            for order in 1..6 {
                let other = emulated(limits, order, || case.derive(false, NormCase::ours)).unwrap();
                assert!(first.iter().zip(&other).all(|(a, b)| a.equal(b)), "{case:?}, order {order}");
            }
        }
    }
}

#[test]
fn nan_and_inf_reach_their_group_alone() {
    for limits in [GpuLimits::SM_90, SPLIT] {
        for (value, pixel) in [(f64::NAN, 0), (f64::NAN, 17), (f64::INFINITY, 0), (f64::NEG_INFINITY, 17)] {
            let case = NormCase { size: [2, 64, 6, 5], limits, extras: [false; 3], ..PLAIN };
            let mut inputs = case.inputs();
            let Some(clean) = emulated(limits, 0, || case.ours(&inputs)) else { return };
            let x = inputs[0].as_mut().unwrap();
            let _ = x.get(1).get(20).view(-1).get(pixel).fill_(value);
            let y = emulated(limits, 0, || case.ours(&inputs)).unwrap();
            let group = |of: &Tensor| of.get(1).narrow(0, 20, 2); // channels 20 and 21 are group 10
            assert!(group(&y).isnan().all().int64_value(&[]) == 1, "{value} at {pixel}");
            let _ = (group(&y).fill_(0.), group(&clean).fill_(0.));
            assert!(y.equal(&clean), "{value} at {pixel}");
        }
    }
}

/// Values around 1000 of unit deviation: sums of squares in f32 would have no digit of the deviation left.
#[test]
fn a_mean_far_from_zero_costs_no_more_than_its_own_rounding() {
    for limits in [GpuLimits::SM_90, SPLIT] {
        let case = NormCase { size: [1, 64, 40, 41], limits, silu: false, extras: [false; 3], ..PLAIN };
        let mut inputs = case.inputs();
        inputs[0] = Some(inputs[0].as_ref().unwrap() + 1000.);
        let Some(y) = emulated(limits, 0, || case.ours(&inputs)) else { return };
        assert_near("y", &y, &case.reference(&inputs), 1e-4); // f32 at 1000 has steps of 6e-5
    }
}

/// Finite differences along a random direction of all inputs: (L(p + h·d) - L(p - h·d)) / 2h = ∇L·d + O(h²).
#[test]
fn gradients_are_slopes() {
    for limits in [GpuLimits::SM_90, SPLIT] {
        let case = NormCase { size: [2, 64, 5, 5], limits, ..PLAIN };
        let (h, inputs) = (1e-2, case.inputs());
        let mut generator = Generator::new(9);
        let directions: Vec<_> = inputs
            .iter()
            .map(|of| to_last(generator.randn(&of.as_ref().unwrap().size(), Kind::Float)))
            .collect();
        let dy = Generator::new(case.seed + 1).randn(&case.size, Kind::Float);
        let loss = |by: f64| {
            let moved: Vec<_> =
                inputs.iter().zip(&directions).map(|(of, d)| Some(of.as_ref().unwrap() + d * by)).collect();
            (case.ours(&moved).to_kind(Kind::Double) * &dy).sum(Kind::Double).double_value(&[])
        };
        let Some(slope) = emulated(limits, 0, || (loss(h) - loss(-h)) / (2. * h)) else { return };
        let all = emulated(limits, 0, || case.derive(false, NormCase::ours)).unwrap();
        let along = |(of, d): (&Tensor, &Tensor)| (of * d).sum(Kind::Double).double_value(&[]);
        let expected: f64 = all[1..].iter().zip(&directions).map(along).sum();
        assert!((slope - expected).abs() < 1e-3 * expected.abs(), "{slope} and {expected}");
    }
}

fn to_last(x: Tensor) -> Tensor {
    if x.dim() == 4 { to_channels_last(&x) } else { x }
}

#[test]
fn autocast_keeps_the_dtype_of_the_map() {
    let case = NormCase { kind: Kind::BFloat16, ..PLAIN };
    let inputs = case.inputs();
    let Some(y) = emulated(PLAIN.limits, 0, || {
        let _guard = autocast(Device::Cpu, Kind::BFloat16);
        case.ours(&inputs)
    }) else {
        return;
    };
    assert_eq!(y.kind(), Kind::BFloat16);
}

#[test]
fn parameters_alone_may_need_gradients() {
    let case = PLAIN;
    let Some(found) = emulated(case.limits, 0, || {
        let mut inputs = case.inputs();
        let weight = inputs[1].take().unwrap().set_requires_grad(true);
        inputs[1] = Some(weight.shallow_clone());
        let y = case.ours(&inputs);
        gradients(&[&y.square().sum(Kind::Float)], &[&weight]).unwrap().remove(0)
    }) else {
        return;
    };
    let mut inputs = case.inputs();
    let weight = inputs[1].take().unwrap().to_kind(Kind::Double).set_requires_grad(true);
    inputs[1] = Some(weight.shallow_clone());
    let y = case.reference(&inputs);
    let expected = gradients(&[&y.square().sum(Kind::Double)], &[&weight]).unwrap().remove(0);
    assert_near("d weight", &found, &expected, 1e-5);
}

#[test]
fn a_second_derivative_is_refused() {
    let Some(error) = emulated(PLAIN.limits, 0, || {
        let mut inputs = PLAIN.inputs();
        let x = inputs[0].take().unwrap().set_requires_grad(true);
        inputs[0] = Some(x.shallow_clone());
        let y = PLAIN.ours(&inputs).square().sum(Kind::Float);
        ldm_libtorch::differentiable_gradients(&[&y], &[&x]).unwrap_err().to_string()
    }) else {
        return;
    };
    assert!(error.contains("group norm: a second derivative needs libtorch's kernels"), "{error}");
}

#[test]
fn other_tensors_are_libtorchs() {
    let [weight, bias] = [1., 0.].map(|value| Tensor::full([64], value, (Kind::Float, Device::Cpu)));
    let of = GroupNormTensors { groups: 32, weight: &weight, bias: &bias, eps: 1e-5 };
    let is_served = |x: &Tensor| group_norm(x, of, NormExtras::default()).is_some();
    let map = to_channels_last(&Generator::new(0).randn(&[2, 64, 4, 4], Kind::Float));
    assert!(!is_served(&map), "no GPU, no emulator");
    let Some(served) = emulated(PLAIN.limits, 0, || {
        [
            map.shallow_clone(),
            map.contiguous(),
            map.to_kind(Kind::Double),
            map.narrow(0, 0, 0),
            map.flatten(2, 3),
            map.narrow(3, 0, 2),
        ]
        .map(|x| is_served(&x))
    }) else {
        return;
    };
    assert_eq!(served, [true, false, false, false, false, false]);
}
