//! The class embedder in training: one lookup per step.

#![allow(missing_docs, reason = "criterion's macro makes a function without any")]

use criterion::{Criterion, criterion_group, criterion_main};
use ldm_conditioning::{ClassConfig, ClassEmbedder, Conditioner};
use ldm_core::Prompt;
use ldm_core::device::{bench_device, device_name};
use tch::nn::VarStore;

fn class(criterion: &mut Criterion) {
    let device = bench_device();
    let vs = VarStore::new(device);
    let config = ClassConfig { embed_dim: 512, n_classes: 1001, key: "class".into(), null_class: None };
    let embedder = ClassEmbedder::new(&vs.root(), &config).expect("a config of CompVis");
    let prompt = Prompt::class(&(0..64).collect::<Vec<i64>>());
    let label = format!("class/64x1x512/f32/{}", device_name(device));
    criterion.bench_function(&label, |bencher| {
        bencher.iter(|| embedder.condition(&prompt, true).expect("classes in range"));
    });
}

criterion_group!(benches, class);
criterion_main!(benches);
