//! Forward pass of a narrow U-Net, with and without transformers.

use std::hint::black_box;
use std::time::Duration;

use criterion::{BenchmarkId, Criterion};
use ldm_core::Conditioning;
use ldm_core::device::{bench_device, device_name};
use ldm_unet::{UNet, UNetConfig};
use serde_json::json;
use tch::nn::VarStore;
use tch::{Kind, Tensor};

fn config(transformer: bool) -> UNetConfig {
    let mut config = json!({
        "in_channels": 4, "out_channels": 4, "model_channels": 64, "num_res_blocks": 1,
        "attention_resolutions": [2, 4], "channel_mult": [1, 2, 4], "num_head_channels": 32,
    });
    if transformer {
        config["use_spatial_transformer"] = json!(true);
        config["context_dim"] = json!(128);
    }
    serde_json::from_value(config).expect("a valid config")
}

/// Synchronizes with the GPU by reading one value of the output.
fn synchronize(output: &Tensor) -> f64 {
    output.double_value(&[0, 0, 0, 0])
}

fn forward(criterion: &mut Criterion) {
    let device = bench_device();
    let options = (Kind::Float, device);
    let (x, t) = (Tensor::ones([1, 4, 32, 32], options), Tensor::from_slice(&[500_i64]).to_device(device));
    let mut group =
        criterion.benchmark_group(format!("unet_forward/64x[1,2,4]/32x32/{}", device_name(device)));
    group.sample_size(10).measurement_time(Duration::from_secs(5));
    for (name, transformer) in [("attention", false), ("transformer", true)] {
        for last in [false, true] {
            let vs = VarStore::new(device);
            let unet = UNet::new(&vs.root(), &config(transformer)).expect("a valid config");
            if last {
                ldm_libtorch::channels_last(&vs);
            }
            let context = transformer.then(|| Tensor::ones([1, 77, 128], options));
            let cond = unet.precompute(&Conditioning { context, ..Conditioning::default() });
            let format = if last { "channels_last" } else { "contiguous" };
            group.bench_function(BenchmarkId::new(name, format), |bencher| {
                bencher.iter(|| {
                    tch::no_grad(|| synchronize(&unet.forward_cached(black_box(&x), &t, &cond, false)))
                });
            });
        }
    }
    group.finish();
}

fn main() {
    let mut criterion = Criterion::default().configure_from_args();
    forward(&mut criterion);
    criterion.final_summary();
}
