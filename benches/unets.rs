//! One forward pass of each published U-Net at its training size, and of two at other sizes.

#![allow(missing_docs, reason = "criterion's macro creates an undocumented function")]

use std::hint::black_box;

use criterion::{Criterion, criterion_group, criterion_main};
use ldm_benches::{config, network, shape, slow_group, wait};
use ldm_core::Conditioning;
use ldm_core::device::bench_device;
use ldm_pipelines::{LatentDiffusionConfig, ModelConfig};
use ldm_unet::UNet;
use tch::{Kind, Tensor};

/// One config per network, with the number of its context tokens.
const CONFIGS: [(&str, i64); 8] = [
    ("latent-diffusion/celebahq", 0),
    ("latent-diffusion/lsun-churches", 0),
    ("latent-diffusion/imagenet", 1),
    ("latent-diffusion/imagenet-f8", 1),
    ("latent-diffusion/super-resolution", 0),
    ("latent-diffusion/layout2img", 92),
    ("latent-diffusion/text2img", 77),
    ("stable-diffusion/v1", 77),
];

/// Sides of latents other than the 64 of training.
const SIDES: [i64; 2] = [32, 96];

fn diffusion(name: &str) -> LatentDiffusionConfig {
    match config(&format!("{name}.yaml")) {
        ModelConfig::LatentDiffusion(config) => *config,
        other => unreachable!("{name}: {other:?}"),
    }
}

fn bench(criterion: &mut Criterion, group: &str, name: &str, tokens: i64, sides: &[i64]) {
    let options = (Kind::Float, bench_device());
    let config = diffusion(name);
    let unet = config.unet();
    let (_vs, network) =
        network(unet.model_channels, |vs| UNet::new(&vs.root(), unet).expect("a published config"));
    let context = unet.context_dim.map(|width| Tensor::ones([1, tokens, width], options));
    let cond = network.precompute(&Conditioning { context, ..Conditioning::default() });
    let t = Tensor::full([1], 500, (Kind::Int64, bench_device()));
    let mut group = slow_group(criterion, group);
    for side in sides {
        // Concatenated conditioning counts as latent channels.
        let x = Tensor::ones([1, unet.in_channels, *side, *side], options);
        group.bench_function(format!("{name}/{}", shape(&x)), |bencher| {
            bencher.iter(|| {
                let _ = tch::no_grad(|| network.forward_cached(black_box(&x), &t, &cond, false));
                wait();
            });
        });
    }
    group.finish();
}

fn by_config(criterion: &mut Criterion) {
    for (name, tokens) in CONFIGS {
        let side = diffusion(name).image_size;
        bench(criterion, "unet", name, tokens, &[side]);
    }
}

fn by_size(criterion: &mut Criterion) {
    bench(criterion, "unet", "latent-diffusion/imagenet", 1, &SIDES);
    bench(criterion, "unet", "stable-diffusion/v1", 77, &SIDES[..1]);
}

criterion_group!(benches, by_config, by_size);
criterion_main!(benches);
