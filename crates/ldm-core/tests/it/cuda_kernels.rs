//! Layers with the kernels for CUDA, on the emulator, against the same layers with libtorch's.

use ldm_core::nn::{Added, Conv2d, GroupNorm, NormInput, conv2d, linear};
use ldm_libtorch::cuda_kernels::{GpuLimits, with_emulated_gpu};
use ldm_libtorch::{Generator, channels_last, count_operations, to_channels_last};
use ldm_testing::{assert_close, fill_weights};
use tch::nn::{Module, VarStore};
use tch::{Device, Kind, Tensor};

/// Two halves of a residual block, and their inputs.
struct Block {
    norms: [GroupNorm; 2],
    convs: [Conv2d; 2],
    /// `[B, C, h, w]`.
    x: Tensor,
    /// `[B, C]`.
    emb: Tensor,
    /// `[B, 2C]`.
    scale_shift: Tensor,
    _vs: VarStore,
}

impl Block {
    fn new() -> Self {
        let mut vs = VarStore::new(Device::Cpu);
        let root = vs.root();
        let norms = ["norm1", "norm2"].map(|name| GroupNorm::new(&(&root / name), 64, 1e-5).unwrap());
        let convs = ["conv1", "conv2"].map(|name| conv2d(&(&root / name), 64, 64, 3, 1, 1));
        fill_weights(&vs, 3);
        channels_last(&vs);
        vs.freeze();
        let mut generator = Generator::new(1);
        let mut draw = |size: &[i64]| generator.randn(size, Kind::Float);
        let (x, emb, scale_shift) =
            (to_channels_last(&draw(&[2, 64, 6, 7])), draw(&[2, 64]), draw(&[2, 128]));
        Self { norms, convs, x, emb, scale_shift, _vs: vs }
    }

    fn first_half(&self) -> NormInput<'_> {
        self.convs[0].normed_to_norm(&self.norms[0], &self.x, Some(&self.emb))
    }

    fn forward(&self, residual: &Tensor) -> Tensor {
        let added = Added { to_image: None, residual: Some(residual) };
        self.convs[1].normed_sum(&self.norms[1], &self.first_half(), added)
    }

    /// The layers one by one.
    fn plain(&self, residual: &Tensor) -> Tensor {
        let emb = self.emb.unsqueeze(-1).unsqueeze(-1);
        let h = self.x.apply(&self.norms[0]).silu().apply(&self.convs[0]) + emb;
        h.apply(&self.norms[1]).silu().apply(&self.convs[1]) + residual
    }
}

#[allow(clippy::print_stderr, reason = "a test that skips reports it")]
fn emulated<T>(body: impl FnOnce() -> T) -> Option<T> {
    let result = with_emulated_gpu(GpuLimits::SM_90, 0, body);
    if result.is_none() {
        eprintln!("skipped: the emulator is in debug builds alone");
    }
    result
}

#[test]
fn a_residual_block_is_two_norms_two_convolutions_and_one_sum() {
    let block = Block::new();
    let Some((y, seen)) = emulated(|| count_operations(|| block.forward(&block.x))) else { return };
    assert_close("y", &y, &block.plain(&block.x), 1e-5);
    let calls = |name: &str| seen.iter().filter(|each| each.name == name).map(|each| each.calls).sum::<i64>();
    assert_eq!(
        (calls("ldm::group_norm"), calls("aten::conv2d"), calls("ldm::bias_add")),
        (2, 2, 1),
        "{seen:?}"
    );
    assert_eq!(calls("aten::add") + calls("aten::add_") + calls("aten::silu"), 0, "{seen:?}");
}

/// A residual in another memory format is not the kernels'.
#[test]
fn a_sum_that_no_kernel_serves_is_libtorchs() {
    let block = Block::new();
    let residual = block.x.contiguous();
    let Some(y) = emulated(|| block.forward(&residual)) else { return };
    assert_close("y", &y, &block.plain(&residual), 1e-5);
}

/// The sum that a kernel would add is added by libtorch if the norm is.
#[test]
fn a_norm_without_the_kernel_adds_the_same() {
    let block = Block::new();
    let Some(input) = emulated(|| block.first_half()) else { return };
    assert!(input.whole().is_none(), "bias and time embedding are left to the norm");
    for scale_shift in [None, Some(&block.scale_shift)] {
        let norm = || block.norms[1].forward_silu_of(&input, scale_shift);
        assert_close("y", &norm(), &emulated(norm).unwrap(), 1e-5);
    }
}

#[test]
fn a_norm_of_another_dtype_than_its_weights_is_that_of_libtorch() {
    let mut vs = VarStore::new(Device::Cpu);
    let norm = GroupNorm::new(&vs.root(), 64, 1e-5).unwrap();
    fill_weights(&vs, 3);
    vs.set_kind(Kind::BFloat16);
    let x = Block::new().x;
    let Some(y) = emulated(|| norm.forward(&x)) else { return };
    assert_eq!(y.kind(), Kind::BFloat16);
    assert_close("y", &y, &norm.forward(&x), 1e-2);
}

#[test]
fn a_feed_forward_layer_has_the_kernel_of_geglu() {
    let vs = VarStore::new(Device::Cpu);
    let layer = linear(&vs.root(), 24, 80, true);
    fill_weights(&vs, 2);
    let x = Generator::new(4).randn(&[3, 5, 24], Kind::Float);
    // With gradients, which the kernels for the CPU do not have.
    let Some((y, seen)) = emulated(|| count_operations(|| layer.geglu(&x))) else { return };
    assert!(seen.iter().any(|each| each.name == "ldm::geglu"), "{seen:?}");
    assert_close("y", &y.detach(), &layer.geglu(&x).detach(), 1e-6);
}
