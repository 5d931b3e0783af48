//! A whole U-Net with the kernels of `ldm-kernels` against libtorch's.

use ldm_core::Conditioning;
use ldm_libtorch::kernels::{Level, set_kernels};
use ldm_libtorch::{channels_last, count_operations};
use ldm_testing::{fill_weights, relative_l2};
use ldm_unet::{UNet, UNetConfig};
use serde_json::json;
use tch::nn::VarStore;
use tch::{Device, Kind, Tensor};

#[test]
fn a_network_has_the_values_of_libtorch() {
    for scale_shift in [false, true] {
        let config: UNetConfig = serde_json::from_value(json!({
            "image_size": 40, "in_channels": 4, "out_channels": 4, "model_channels": 64, "num_res_blocks": 1,
            "attention_resolutions": [1, 2], "channel_mult": [1, 2], "num_heads": 4, "use_spatial_transformer": true,
            "transformer_depth": 1, "context_dim": 24, "use_scale_shift_norm": scale_shift,
        }))
        .unwrap();
        let vs = VarStore::new(Device::Cpu);
        let unet = UNet::new(&vs.root(), &config).unwrap();
        fill_weights(&vs, 5);
        channels_last(&vs);
        let f32 = (Kind::Float, Device::Cpu);
        let (x, t) = (Tensor::randn([2, 4, 40, 40], f32), Tensor::from_slice(&[3_i64, 900]));
        let cond = Conditioning { context: Some(Tensor::randn([2, 7, 24], f32)), ..Conditioning::default() };
        let forward = || tch::no_grad(|| unet.forward(&x, &t, &cond, false));
        set_kernels(None);
        let libtorch = forward();
        for level in [Level::Avx2, Level::Avx512].into_iter().filter(|level| level.is_available()) {
            set_kernels(Some(level));
            let (ours, seen) = count_operations(forward);
            let error = relative_l2(&ours, &libtorch);
            assert!(error < 1e-5, "{level}, scale_shift {scale_shift}: {error:e}");
            for kernel in ["conv3x3", "conv1x1", "attention", "group_norm", "linear", "linear_geglu"] {
                let name = format!("ldm::{kernel}");
                assert!(seen.iter().any(|each| each.name == name), "{name} in {seen:?}");
            }
            // The second image alone: our kernels do not depend on the batch, libtorch's products do by their rounding.
            let context = cond.context.as_ref().map(|context| context.narrow(0, 1, 1));
            let alone = Conditioning { context, ..Conditioning::default() };
            let one = tch::no_grad(|| unet.forward(&x.narrow(0, 1, 1), &t.narrow(0, 1, 1), &alone, false));
            let error = relative_l2(&one, &ours.narrow(0, 1, 1));
            assert!(error < 1e-5, "{level}: {error:e}");
        }
        set_kernels(Some(Level::detect()));
    }
}
