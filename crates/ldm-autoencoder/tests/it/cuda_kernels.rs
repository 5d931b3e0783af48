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
    for (name, gradient) in &expected {
        if !has_no_effect(name) {
            assert_close(name, &found[name], gradient, 1e-4);
            continue;
        }
        // Both are rounding, of sums whose terms are those of the weight's gradient.
        let weight = expected[&name.replace(".bias", ".weight")].norm();
        for each in [gradient, &found[name]] {
            let part = (each.norm() / &weight).double_value(&[]);
            assert!(part <= 1e-4, "{name}: {part:.1e} of the weight's gradient, expected 0");
        }
    }
}

/// Returns whether a parameter of `kl_f2_vanilla` adds what the next operation removes, so that its gradient is 0: the bias of
/// keys adds the same to all logits of a query, and a norm of one channel a group, as with the 32 channels of the outermost
/// blocks, removes the mean of each channel.
fn has_no_effect(name: &str) -> bool {
    let is_bias_of = |layers: &[&str]| layers.iter().any(|layer| name.ends_with(&format!(".{layer}.bias")));
    let before_norms = name.starts_with("decoder.up.0.block.")
        && is_bias_of(&["conv1", "conv2", "nin_shortcut"])
        || name.starts_with("encoder.down.0.block.") && is_bias_of(&["conv1"]);
    is_bias_of(&["k"]) || before_norms
}
