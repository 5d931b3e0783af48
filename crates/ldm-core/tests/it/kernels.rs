//! Layers with the kernels of `ldm-kernels` and with libtorch's.

use ldm_core::nn::attention::token_attention;
use ldm_core::nn::{Added, Conv2d, GroupNorm, conv2d, linear, project};
use ldm_libtorch::kernels::{self, Level};
use ldm_libtorch::{count_operations, is_channels_last, to_channels_last};
use tch::nn::VarStore;
use tch::{Device, Kind, Tensor};

const F32: (Kind, Device) = (Kind::Float, Device::Cpu);

/// Runs `body` with our kernels at each level with vectors, then with libtorch's.
fn with_both(body: impl Fn(Option<Level>) -> Tensor) {
    tch::no_grad(|| {
        let libtorch = {
            kernels::set_kernels(None);
            body(None)
        };
        for level in [Level::Avx2, Level::Avx512].into_iter().filter(|level| level.is_available()) {
            kernels::set_kernels(Some(level));
            let ours = body(Some(level));
            let error = (&ours - &libtorch).norm().double_value(&[]) / libtorch.norm().double_value(&[]);
            assert!(error < 1e-5, "{level}: {error:e}");
            assert_eq!(ours.stride(), libtorch.stride(), "{level}: the memory format of libtorch's");
        }
    });
    kernels::set_kernels(Some(Level::detect()));
}

/// The names of the operations of `body`.
fn names(body: impl FnOnce() -> Tensor) -> Vec<String> {
    count_operations(body).1.into_iter().map(|each| each.name).collect()
}

fn block() -> (Conv2d, GroupNorm, Tensor) {
    let vs = VarStore::new(Device::Cpu);
    let conv = conv2d(&vs.root(), 64, 96, 3, 1, 1);
    let norm = GroupNorm::new(&(vs.root() / "norm"), 64, 1e-5).unwrap();
    let x = to_channels_last(&(Tensor::randn([2, 64, 33, 40], F32) * 2. + 0.5));
    (conv, norm, x)
}

#[test]
fn a_normed_convolution_with_its_sums_is_that_of_libtorch() {
    let (conv, norm, x) = block();
    let residual = to_channels_last(&Tensor::randn([2, 96, 33, 40], F32));
    let to_image = Tensor::randn([2, 96], F32);
    with_both(|_| conv.normed(&norm, &x, Added::default()));
    with_both(|_| conv.normed(&norm, &x, Added { to_image: Some(&to_image), residual: Some(&residual) }));
    with_both(|_| conv.plus(&x, Added { to_image: Some(&to_image), residual: Some(&residual) }));
}

/// Kernel, stride, padding, channels in and out, height and width: small maps, downsampling, the first and last layers.
const SMALL_MAPS: [[i64; 7]; 7] = [
    [3, 1, 1, 48, 40, 4, 4],
    [3, 1, 1, 64, 64, 1, 1],
    [3, 2, 1, 64, 64, 17, 9],
    [3, 2, 0, 5, 7, 8, 11],
    [1, 2, 0, 33, 20, 6, 5],
    [3, 1, 1, 3, 64, 16, 16],
    [4, 2, 1, 64, 1, 10, 10],
];

#[test]
fn convolutions_of_small_maps_are_those_of_libtorch_and_the_same_bytes_alone_and_in_a_batch() {
    for [kernel, stride, padding, channels, features, height, width] in SMALL_MAPS {
        let conv = conv2d(&VarStore::new(Device::Cpu).root(), channels, features, kernel, stride, padding);
        let x = to_channels_last(&Tensor::randn([5, channels, height, width], F32));
        with_both(|_| x.apply(&conv).reshape(-1i64)); // flat, since strides of one pixel or channel are ambiguous
        tch::no_grad(|| {
            let (batch, operations) = count_operations(|| x.apply(&conv));
            let names: Vec<_> = operations.into_iter().map(|each| each.name).collect();
            assert!(names.iter().any(|name| name == "ldm::linear"), "a product of our own, got {names:?}");
            assert!(is_channels_last(&batch), "the next layer copies nothing");
            let alone: Vec<_> = (0..5).map(|index| x.narrow(0, index, 1).apply(&conv)).collect();
            assert_eq!(batch, Tensor::cat(&alone, 0), "{kernel}x{kernel} of stride {stride}");
        });
    }
}

#[test]
fn inputs_of_other_sizes_and_orders_are_broadcast_as_by_libtorch() {
    let (conv, norm, x) = block();
    let one = to_channels_last(&Tensor::randn([1, 96, 33, 40], F32));
    let columns = Tensor::randn([96, 2], F32).transpose(0, 1); // dense, but not in the order [B, K]
    with_both(|_| conv.normed(&norm, &x, Added { to_image: Some(&columns), residual: None }));
    with_both(|_| conv.plus(&x, Added { to_image: None, residual: Some(&one) }));
    let [q, k] = [2, 1].map(|batch| Tensor::randn([batch, 30, 64], F32));
    with_both(|_| token_attention(&q, &k, &k, 4));
}

#[test]
fn norms_and_attention_are_those_of_libtorch() {
    let (_, norm, x) = block();
    with_both(|_| norm.forward_silu(&x));
    with_both(|_| x.apply(&norm));
    let [q, k] = [60, 77].map(|length| Tensor::randn([2, length, 8 * 40], F32));
    with_both(|_| token_attention(&q, &k, &k, 8));
}

#[test]
fn bf16_attention_is_that_of_f32_and_ours_where_the_processor_multiplies_bf16() {
    let [q, k] = [60, 300].map(|length| Tensor::randn([2, length, 8 * 40], F32).to_kind(Kind::BFloat16));
    let [q32, k32] = [&q, &k].map(|x| x.to_kind(Kind::Float));
    tch::no_grad(|| {
        let exact = token_attention(&q32, &k32, &k32, 8);
        for level in Level::ALL.into_iter().filter(|level| level.is_available()) {
            kernels::set_kernels(Some(level));
            let mut ours = Tensor::new();
            let used = names(|| {
                ours = token_attention(&q, &k, &k, 8);
                ours.shallow_clone()
            });
            let is_ours = used.iter().any(|name| name == "ldm::attention");
            assert_eq!(is_ours, level == Level::Avx512 && kernels::has_bf16_products(), "{level}: {used:?}");
            assert_eq!(ours.kind(), Kind::BFloat16);
            let distance = (ours.to_kind(Kind::Float) - &exact).norm() / exact.norm();
            let distance = distance.double_value(&[]);
            assert!(distance < 4e-3, "{level}: {distance:e}");
        }
    });
    kernels::set_kernels(Some(Level::detect()));
}

#[test]
fn bf16_convolutions_and_norms_are_those_of_f32() {
    let vs = VarStore::new(Device::Cpu);
    let conv = conv2d(&vs.root(), 64, 96, 3, 1, 1);
    let norm = GroupNorm::new(&(vs.root() / "norm"), 64, 1e-5).unwrap();
    let x = to_channels_last(&(Tensor::randn([2, 64, 33, 40], F32) * 2. + 0.5));
    let (to_image, residual) =
        (Tensor::randn([2, 96], F32), to_channels_last(&Tensor::randn([2, 96, 33, 40], F32)));
    let mut half = VarStore::new(Device::Cpu);
    let (conv16, norm16) =
        (conv2d(&half.root(), 64, 96, 3, 1, 1), GroupNorm::new(&(half.root() / "norm"), 64, 1e-5).unwrap());
    half.copy(&vs).unwrap();
    half.bfloat16();
    let [x16, to_image16, residual16] = [&x, &to_image, &residual].map(|x| x.to_kind(Kind::BFloat16));
    tch::no_grad(|| {
        let exact = conv.normed(&norm, &x, Added { to_image: Some(&to_image), residual: Some(&residual) });
        for level in Level::ALL.into_iter().filter(|level| level.is_available()) {
            kernels::set_kernels(Some(level));
            let added = Added { to_image: Some(&to_image16), residual: Some(&residual16) };
            let mut ours = Tensor::new();
            let used = names(|| {
                ours = conv16.normed(&norm16, &x16, added);
                ours.shallow_clone()
            });
            let is_ours = used.iter().any(|name| name == "ldm::conv3x3");
            assert_eq!(is_ours, level > Level::Scalar && !kernels::has_amx(), "{level}: {used:?}");
            assert_eq!((ours.kind(), ours.stride()), (Kind::BFloat16, exact.stride()));
            let distance = (ours.to_kind(Kind::Float) - &exact).norm() / exact.norm();
            assert!(distance.double_value(&[]) < 5e-3, "{level}: {distance:?}");
            let normed = norm16.forward_silu(&x16).to_kind(Kind::Float);
            let distance = (&normed - norm.forward_silu(&x)).norm() / normed.norm();
            assert!(distance.double_value(&[]) < 5e-3, "{level}: {distance:?}");
        }
    });
    kernels::set_kernels(Some(Level::detect()));
}

#[test]
fn products_are_those_of_libtorch() {
    let vs = VarStore::new(Device::Cpu);
    let (layer, plain) = (linear(&vs.root(), 80, 70, true), linear(&(vs.root() / "plain"), 80, 70, false));
    let x = Tensor::randn([2, 60, 80], F32);
    let residual = Tensor::randn([2, 60, 70], F32);
    for layer in [&layer, &plain] {
        with_both(|_| x.apply(layer));
        with_both(|_| layer.plus(&x, &residual));
        with_both(|_| layer.geglu(&x));
        with_both(|_| layer.plus(&x, &residual.narrow(0, 0, 1))); // broadcast by libtorch
        with_both(|_| x.transpose(0, 1).apply(layer)); // not contiguous
    }
    let weight = Tensor::randn([70, 80, 1], F32);
    with_both(|_| project(&x, &weight, None));
}

#[test]
fn convolutions_of_one_pixel_are_those_of_libtorch() {
    let vs = VarStore::new(Device::Cpu);
    let conv = conv2d(&vs.root(), 64, 96, 1, 1, 0);
    let [x, residual] = [64, 96].map(|channels| to_channels_last(&Tensor::randn([2, channels, 9, 11], F32)));
    let to_image = Tensor::randn([2, 96], F32);
    with_both(|_| x.apply(&conv));
    with_both(|_| conv.plus(&x, Added { to_image: None, residual: Some(&residual) }));
    with_both(|_| conv.plus(&x, Added { to_image: Some(&to_image), residual: None }));
}

#[test]
fn our_kernels_run_and_are_counted_as_the_direct_sum() {
    let (conv, _, x) = block();
    kernels::set_kernels(Some(Level::detect()));
    if kernels::kernels() == Some(Level::Scalar) {
        return; // libtorch's are faster
    }
    let vs = VarStore::new(Device::Cpu);
    let layer = linear(&vs.root(), 64, 32, true);
    let tokens = Tensor::ones([2, 50, 64], F32);
    let (_, seen) =
        tch::no_grad(|| count_operations(|| (x.apply(&conv), tokens.apply(&layer), layer.geglu(&tokens))));
    for name in ["ldm::linear", "ldm::linear_geglu"] {
        let product = seen.iter().find(|each| each.name == name).expect(name);
        assert_eq!(product.flop, 2 * 64 * 32 * 2 * 50, "{name}");
    }
    let ours = seen.iter().find(|each| each.name == "ldm::conv3x3").expect("our kernel");
    assert_eq!(ours.flop, 2 * 9 * 64 * 96 * 2 * 33 * 40);
    assert!(!seen.iter().any(|each| each.name.contains("conv2d")), "{seen:?}");
}

#[test]
fn gradients_half_precision_and_other_formats_are_libtorchs() {
    let (conv, norm, x) = block();
    let ours = |names: &[String]| names.iter().any(|name| name.starts_with("ldm::"));
    assert!(!ours(&names(|| conv.normed(&norm, &x, Added::default()))), "gradients");
    tch::no_grad(|| {
        let small = to_channels_last(&x.narrow(2, 0, 7).narrow(3, 0, 8));
        assert!(!names(|| small.apply(&conv)).contains(&"ldm::conv3x3".into()), "a small map");
        assert!(!ours(&names(|| x.contiguous().apply(&conv))), "NCHW");
        let vs = VarStore::new(Device::Cpu);
        let layer = linear(&vs.root(), 16, 8, true);
        // Few rows are ours too: the sums of libtorch's products depend on their number.
        for size in [vec![2, 31, 16], vec![1, 16]] {
            assert!(ours(&names(|| Tensor::ones(&size, F32).apply(&layer))), "{size:?}");
        }
        let weight = Tensor::ones([8, 16], (Kind::BFloat16, Device::Cpu));
        assert!(
            !ours(&names(|| project(
                &Tensor::ones([2, 50, 16], (Kind::BFloat16, Device::Cpu)),
                &weight,
                None
            ))),
            "bf16"
        );
        kernels::set_kernels(None);
        assert!(!ours(&names(|| x.apply(&conv))), "off");
        kernels::set_kernels(Some(Level::detect()));
    });
}

#[test]
fn nan_passes_through() {
    let (conv, norm, x) = block();
    let _ = x.narrow(0, 1, 1).fill_(f64::NAN);
    tch::no_grad(|| {
        let y = conv.normed(&norm, &x, Added::default()).isnan();
        assert!(bool::try_from(y.narrow(0, 1, 1).all()).unwrap());
        assert!(!bool::try_from(y.narrow(0, 0, 1).any()).unwrap());
    });
}
