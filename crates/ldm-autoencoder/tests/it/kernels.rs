//! A whole first stage with the kernels of `ldm-kernels` against libtorch's.

use ldm_autoencoder::{Autoencoder, FirstStage, FirstStageConfig};
use ldm_libtorch::channels_last;
use ldm_libtorch::kernels::{Level, set_kernels};
use ldm_testing::{fill_weights, relative_l2};
use serde_json::json;
use tch::nn::VarStore;
use tch::{Device, Kind, Tensor};

#[test]
fn a_first_stage_has_the_values_of_libtorch() {
    let config: FirstStageConfig = serde_json::from_value(json!({
        "target": "kl",
        "params": {
            "embed_dim": 4,
            "ddconfig": {
                "double_z": true, "z_channels": 4, "resolution": 80, "in_channels": 3, "out_ch": 3, "ch": 64,
                "ch_mult": [1, 2], "num_res_blocks": 1, "attn_resolutions": [],
            },
        },
    }))
    .unwrap();
    let vs = VarStore::new(Device::Cpu);
    let model = Autoencoder::new(&vs.root(), &config).unwrap();
    fill_weights(&vs, 1);
    channels_last(&vs);
    let image = Tensor::rand([2, 3, 80, 72], (Kind::Float, Device::Cpu)) * 2. - 1.;
    let both = || {
        tch::no_grad(|| {
            let z = model.encode(&image).mode();
            [model.decode(&z), z]
        })
    };
    set_kernels(None);
    let libtorch = both();
    for level in [Level::Avx2, Level::Avx512].into_iter().filter(|level| level.is_available()) {
        set_kernels(Some(level));
        for (name, (ours, libtorch)) in ["decoded", "encoded"].iter().zip(both().iter().zip(&libtorch)) {
            let error = relative_l2(ours, libtorch);
            assert!(error < 2e-5, "{level}, {name}: {error:e}");
        }
    }
    set_kernels(Some(Level::detect()));
}
