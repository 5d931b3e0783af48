//! CLIP's text model of ViT-L/14 over a prompt and the null prompt: once per image.

#![allow(missing_docs, reason = "criterion's macro makes a function without any")]

use criterion::{Criterion, criterion_group, criterion_main};
use ldm_conditioning::{ClipTextConfig, ClipTextEmbedder, Conditioner};
use ldm_core::Prompt;
use ldm_core::device::{bench_device, device_name};
use tch::nn::VarStore;
use tch::{Kind, Tensor};

fn clip_text(criterion: &mut Criterion) {
    let device = bench_device();
    let vs = VarStore::new(device);
    let config = ClipTextConfig::default();
    let embedder = ClipTextEmbedder::new(&vs.root(), &config, None).expect("a config of CompVis");
    let tokens = Tensor::randint(config.vocab_size, [2, config.max_length], (Kind::Int64, device));
    let prompt = Prompt { tokens: Some(tokens), ..Prompt::default() };
    let label = format!("clip_text/vit-l-14/2x77/f32/{}", device_name(device));
    criterion.benchmark_group("text").sample_size(10).bench_function(&label, |bencher| {
        bencher.iter(|| {
            let context = embedder.condition(&prompt, false).expect("tokens in range").context;
            // Reading a value synchronizes with the device.
            context.expect("a context").double_value(&[0, 0, 0])
        });
    });
}

criterion_group!(benches, clip_text);
criterion_main!(benches);
