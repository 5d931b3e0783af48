//! Deep features that several evaluations share.

use ldm_core::Conditioning;
use ldm_testing::{fill_weights, relative_l2};
use ldm_unet::{DeepFeatures, Evaluation, UNet, UNetConfig};
use serde_json::json;
use tch::nn::VarStore;
use tch::{Device, Kind, Tensor};

/// A network with transformers in every block, so that left-out blocks have keys and values.
fn network() -> (VarStore, UNet) {
    let config: UNetConfig = serde_json::from_value(json!({
        "image_size": 8, "in_channels": 4, "out_channels": 4, "model_channels": 32, "num_res_blocks": 2,
        "attention_resolutions": [1, 2], "channel_mult": [1, 2], "num_heads": 4, "use_spatial_transformer": true,
        "transformer_depth": 2, "context_dim": 24,
    }))
    .unwrap();
    let vs = VarStore::new(Device::Cpu);
    let unet = UNet::new(&vs.root(), &config).unwrap();
    fill_weights(&vs, 5);
    (vs, unet)
}

#[test]
fn features_of_the_same_input_give_the_same_output() {
    let (_vs, unet) = network();
    let f32 = (Kind::Float, Device::Cpu);
    let (x, other) = (Tensor::randn([2, 4, 8, 8], f32), Tensor::randn([2, 4, 8, 8], f32));
    let t = Tensor::from_slice(&[3_i64, 900]);
    let cond = Conditioning { context: Some(Tensor::randn([2, 7, 24], f32)), ..Conditioning::default() };
    tch::no_grad(|| {
        let cond = unet.precompute(&cond);
        let full = unet.forward_cached(&x, &t, &cond, false);
        assert_eq!(unet.depth(), 6);
        for depth in 1..unet.depth() {
            let evaluate = |x: &Tensor, features: &mut Option<Tensor>| {
                let deep = Some(DeepFeatures { depth, features });
                unet.evaluate(x, &t, &cond, Evaluation { deep, ..Evaluation::default() })
            };
            let mut deep = None;
            let filled = evaluate(&x, &mut deep);
            assert_eq!(filled, full, "depth {depth}: all blocks");
            let shallow = evaluate(&x, &mut deep);
            assert_eq!(shallow, full, "depth {depth}: the features are all that was left out");
            // Of another input: neither its output nor that of the features' input.
            let shallow = evaluate(&other, &mut deep);
            assert!(
                relative_l2(&shallow, &unet.forward_cached(&other, &t, &cond, false)) > 1e-3,
                "depth {depth}"
            );
            assert!(relative_l2(&shallow, &full) > 1e-3, "depth {depth}");
        }
    });
}
