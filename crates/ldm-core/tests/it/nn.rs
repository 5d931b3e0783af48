//! Layers compared with PyTorch's initialization and values of CompVis' code.

use ldm_core::device::test_device;
use ldm_core::nn::attention::attention;
use ldm_core::nn::{GroupNorm, TimestepEmbedding, conv1d_1x1, conv2d, linear, zero_conv1d_1x1, zero_conv2d};
use ldm_testing::{Golden, assert_close, fill_weights};
use tch::nn::{Module, VarStore};
use tch::{Kind, Tensor};

fn golden() -> Golden {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/golden/values.safetensors");
    Golden::open(path, test_device())
}

#[test]
fn timestep_embedding_equals_compvis() {
    let golden = golden();
    for (name, dim) in [("embedding.64", 64), ("embedding.33", 33)] {
        // CompVis' own f32 exponential, times t = 999, moves by 3e-6 from an AMD to an Intel CPU.
        let embedding = TimestepEmbedding::new(dim, test_device());
        assert_close(name, &embedding.forward(golden.get("t")), golden.get(name), 1e-5);
    }
    let fractional = Tensor::from_slice(&[0.5_f32, 12.25]).to_device(test_device());
    let embedding = TimestepEmbedding::new(64, test_device()).forward(&fractional);
    assert_close("fractional", &embedding, golden.get("fractional"), 1e-6);
}

#[test]
fn weights_by_formula_equal_numpys() {
    let golden = golden();
    let vs = VarStore::new(test_device());
    let root = vs.root();
    conv2d(&(&root / "conv"), 32, 8, 3, 1, 1);
    GroupNorm::new(&(&root / "norm"), 32, 1e-5).unwrap();
    linear(&(&root / "out"), 7, 5, true);
    fill_weights(&vs, 5);
    let variables = vs.variables();
    assert_eq!(variables.len(), golden.scope("filled.").len());
    for (name, want) in golden.scope("filled.") {
        assert_close(&name, &variables[&name], &want, 1e-5);
    }
}

/// The largest magnitude, and how much of [-bound, bound] is used.
#[track_caller]
fn assert_uniform(what: &str, tensor: &Tensor, bound: f64) {
    let largest = tensor.abs().max().double_value(&[]);
    assert!(
        largest <= bound * (1. + 1e-6) && largest > 0.9 * bound,
        "{what}: largest {largest}, bound {bound}"
    );
    let deviation = tensor.std(true).double_value(&[]);
    let expected = bound / 3_f64.sqrt();
    assert!((deviation / expected - 1.).abs() < 0.2, "{what}: deviation {deviation}, expected {expected}");
}

#[test]
fn layers_are_initialized_as_in_pytorch() {
    let vs = VarStore::new(test_device());
    let root = vs.root();
    let conv = conv2d(&(&root / "conv"), 16, 128, 3, 1, 1);
    let bound = 1. / (16. * 9_f64).sqrt();
    assert_uniform("conv2d weight", conv.weight(), bound);
    assert_uniform("conv2d bias", conv.bias().unwrap(), bound);
    let conv = conv1d_1x1(&(&root / "conv1d"), 64, 128);
    assert_eq!(conv.ws.size(), [128, 64, 1]);
    assert_uniform("conv1d weight", &conv.ws, 0.125);
    let layer = linear(&(&root / "linear"), 100, 200, true);
    assert_uniform("linear weight", layer.parameters().next().unwrap(), 0.1);
    assert_uniform("linear bias", layer.parameters().nth(1).unwrap(), 0.1);
    assert!(linear(&(&root / "plain"), 4, 4, false).parameters().nth(1).is_none());
}

#[test]
fn zero_layers_return_zeros_of_the_same_size() {
    let vs = VarStore::new(test_device());
    let root = vs.root();
    let x = Tensor::ones([1, 4, 6, 7], (Kind::Float, test_device()));
    let out = zero_conv2d(&(&root / "a"), 4, 3, 3).forward(&x);
    assert_eq!((out.size(), out.abs().max().double_value(&[])), (vec![1, 3, 6, 7], 0.));
    let out = zero_conv1d_1x1(&(&root / "b"), 4, 3).forward(&x.flatten(2, 3));
    assert_eq!((out.size(), out.abs().max().double_value(&[])), (vec![1, 3, 42], 0.));
}

#[test]
fn group_norm_needs_32_groups() {
    let vs = VarStore::new(test_device());
    for channels in [48, 31, 0, -32] {
        let error = GroupNorm::new(&vs.root(), channels, 1e-6).unwrap_err().to_string();
        assert_eq!(error, format!("channels of a group norm: expected a multiple of 32, got {channels}"));
    }
    assert!(vs.is_empty(), "a refused layer leaves no parameters");
}

#[test]
fn group_norm_normalizes_each_group() {
    let vs = VarStore::new(test_device());
    let norm = GroupNorm::new(&vs.root(), 64, 1e-6).unwrap();
    let x = Tensor::arange(2 * 64 * 9, (Kind::Float, test_device())).view([2, 64, 3, 3]) * 0.1 + 7.;
    let normalized = |x: &Tensor| {
        let groups = x.view([2, 32, 18]);
        let dims = [-1_i64].as_slice();
        let centered = &groups - groups.mean_dim(dims, true, Kind::Float);
        (&centered / (centered.square().mean_dim(dims, true, Kind::Float) + 1e-6).sqrt()).view_as(x)
    };
    assert_close("group norm", &norm.forward(&x), &normalized(&x), 1e-5);
    // bf16 activations with f32 weights, as under autocast. The statistics stay in f32: in bf16 the mean of
    // a group, up to 122, would be off by a tenth of the group's spread.
    let x = x.to_kind(Kind::BFloat16);
    let want = normalized(&x.to_kind(Kind::Float));
    assert_close("group norm in bf16", &norm.forward(&x), &want, 1e-2);
}

#[test]
fn bf16_attention_over_few_and_many_keys_equals_f32() {
    let generator = |seed: i64, shape: &[i64]| {
        tch::manual_seed(seed);
        Tensor::randn(shape, (Kind::Float, test_device()))
    };
    for keys in [1, 24, 128, 129, 300] {
        let shapes = [[2, 3, 40, 16], [2, 3, keys, 16], [2, 3, keys, 16]];
        let exact: Vec<_> = shapes.iter().zip(1..).map(|(shape, seed)| generator(seed, shape)).collect();
        let outcome = |kind: Kind| {
            let qkv: Vec<_> = exact.iter().map(|x| x.to_kind(kind).set_requires_grad(true)).collect();
            let out = attention(&qkv[0], &qkv[1], &qkv[2]);
            let weight = generator(9, &out.size());
            (&out * weight.to_kind(kind)).sum(Kind::Float).backward();
            let gradients = qkv.iter().map(Tensor::grad);
            std::iter::once(out.shallow_clone())
                .chain(gradients)
                .map(|x| x.to_kind(Kind::Float))
                .collect::<Vec<_>>()
        };
        let (rounded, wanted) = (outcome(Kind::BFloat16), outcome(Kind::Float));
        for (name, (got, want)) in ["out", "dq", "dk", "dv"].iter().zip(rounded.iter().zip(&wanted)) {
            let distance = ((got - want).norm() / want.norm().clamp_min(1e-2)).double_value(&[]);
            assert!(distance < 0.02, "{name} of {keys} keys: relative distance {distance}");
        }
    }
}
