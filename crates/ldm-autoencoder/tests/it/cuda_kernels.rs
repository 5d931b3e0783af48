//! The autoencoder with the kernels for CUDA, on the emulator, against CompVis' own code.

use ldm_autoencoder::FirstStage;
use ldm_libtorch::cuda_kernels::{GpuLimits, with_emulated_gpu};
use ldm_libtorch::{channels_last, count_operations, to_channels_last};
use ldm_testing::assert_close;
use tch::Kind;

use crate::parity::{gaussian, load};

#[test]
fn a_kl_autoencoder_equals_compvis() {
    let (golden, model, vs) = load("kl_f2_vanilla", Kind::Float);
    channels_last(&vs);
    let image = to_channels_last(golden.get("image"));
    let Some(((posterior, reconstruction), seen)) = with_emulated_gpu(GpuLimits::SM_90, 0, || {
        count_operations(|| {
            let posterior = model.encode(&image);
            let reconstruction = model.decode(&posterior.mode());
            (posterior, reconstruction)
        })
    }) else {
        eprintln!("skipped: the emulator is in debug builds alone");
        return;
    };
    let (mean, logvar) = gaussian(&posterior);
    assert_close("mean", mean, golden.get("mean"), 1e-5);
    assert_close("logvar", logvar, golden.get("logvar"), 1e-5);
    assert_close("reconstruction", &reconstruction, golden.get("reconstruction_of_mode"), 1e-5);
    for kernel in ["ldm::group_norm", "ldm::bias_add"] {
        assert!(seen.iter().any(|each| each.name == kernel), "{kernel} in {seen:?}");
    }
}

#[test]
fn gradients_equal_those_without_the_kernels() {
    let gradients = || {
        let (golden, model, vs) = load("kl_f2_vanilla", Kind::Float);
        channels_last(&vs);
        let image = to_channels_last(golden.get("image"));
        let y = model.decode(&model.encode(&image).mode());
        (y - &image).square().mean(Kind::Float).backward();
        let grads = vs.variables().into_iter().map(|(name, of)| (name, of.grad()));
        grads.filter(|(_, grad)| grad.defined()).collect::<std::collections::BTreeMap<_, _>>()
    };
    let Some(found) = with_emulated_gpu(GpuLimits::SM_80, 0, gradients) else { return };
    let expected = gradients();
    assert!(found.len() > 20 && found.len() == expected.len());
    for (name, expected) in &expected {
        assert_close(name, &found[name], expected, 1e-4);
    }
}
