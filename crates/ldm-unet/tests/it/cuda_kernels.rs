//! Whole U-Nets with the kernels for CUDA, on the emulator, against CompVis' own networks.

use ldm_libtorch::cuda_kernels::{GpuLimits, with_emulated_gpu};
use ldm_libtorch::{channels_last, count_operations, to_channels_last};
use ldm_testing::assert_close;
use tch::{Device, Tensor};

use crate::forward::{build, cases, conditioning, golden};
use crate::gradients;

/// Each kernel runs, so that equal values say something.
#[allow(clippy::print_stderr, reason = "a test that skips reports it")]
#[track_caller]
fn has_run<T>(name: &str, kernels: &[&str], body: impl FnOnce() -> T) -> Option<T> {
    let Some((result, seen)) = with_emulated_gpu(GpuLimits::SM_90, 0, || count_operations(body)) else {
        eprintln!("skipped: the emulator is in debug builds alone");
        return None;
    };
    for kernel in kernels {
        assert!(seen.iter().any(|each| each.name == *kernel), "{name}: {kernel} in {seen:?}");
    }
    Some(result)
}

#[test]
fn unet_equals_compvis() {
    let golden = golden("forward");
    for (name, case) in &cases::<ldm_unet::UNetConfig>(&golden) {
        let (vs, unet) = build(case);
        channels_last(&vs);
        let (x, t) = (golden.get(&format!("{name}.x")), golden.get(&format!("{name}.t")));
        let x = to_channels_last(x);
        let forward = || tch::no_grad(|| unet.forward(&x, t, &conditioning(&golden, name), false));
        let Some(y) = has_run(name, &["ldm::group_norm", "ldm::bias_add"], forward) else { return };
        assert_close(name, &y, golden.get(&format!("{name}.y")), 1e-5);
    }
}

#[test]
fn gradients_equal_compvis() {
    let (golden, cases) = gradients::open();
    for (name, case) in cases.iter().filter(|(name, _)| golden.has(&format!("{name}.eval.y"))) {
        let run = || gradients::run_in(&golden, name, case, false, true);
        let kernels = ["ldm::group_norm", "ldm::bias_add"];
        let Some(run) = has_run(name, &kernels, run) else { return };
        assert_close(name, &run.y, golden.get(&format!("{name}.eval.y")), 1e-5);
        let check = |part: &str, found: &Tensor| {
            assert_close(&format!("{name}: {part}"), found, golden.get(&format!("{name}.eval.{part}")), 1e-5);
        };
        run.inputs.iter().for_each(|(input, grad)| check(&format!("inputs.{input}"), grad));
        for (parameter, _) in golden.scope(&format!("{name}.eval.grad.")) {
            check(&format!("grad.{parameter}"), &run.params[&parameter]);
        }
    }
}

#[test]
fn transformers_take_the_kernel_of_geglu() {
    let (golden, cases) = gradients::open();
    let with_context = cases.iter().filter(|(name, _)| golden.has(&format!("{name}.context")));
    for (name, case) in with_context {
        has_run(name, &["ldm::geglu"], || gradients::run_in(&golden, name, case, false, true));
    }
}

#[test]
fn without_a_gpu_no_kernel_runs() {
    let golden = golden("forward");
    let (name, case) = cases::<ldm_unet::UNetConfig>(&golden).into_iter().next().unwrap();
    let (vs, unet) = build(&case);
    channels_last(&vs);
    if vs.device() != Device::Cpu {
        return;
    }
    let (x, t) = (golden.get(&format!("{name}.x")), golden.get(&format!("{name}.t")));
    let x = to_channels_last(x);
    let (_, seen) = count_operations(|| unet.forward(&x, t, &conditioning(&golden, &name), false));
    assert!(seen.iter().all(|each| each.name != "ldm::bias_add" && each.name != "ldm::geglu"), "{seen:?}");
}
