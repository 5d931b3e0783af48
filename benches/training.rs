//! Training steps of the trainer, with data and log, of both stages of `configs/experiments/tiny`.

#![allow(missing_docs, reason = "criterion's macro makes a function without any")]

use std::path::Path;
use std::sync::atomic::AtomicBool;
use std::time::{Duration, Instant};

use criterion::{Criterion, criterion_group, criterion_main};
use ldm_benches::wait;
use ldm_core::device::{bench_device, device_name};
use ldm_train::{Event, RunConfig, Trainer};

/// Steps before the clock starts: the first ones take libtorch's memory from the system.
const BEFORE: u64 = 3;

/// Times `count` steps of a new run, without the checkpoint at the end.
fn steps(name: &str, overrides: &[String], run: &Path, count: u64) -> Duration {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../configs/experiments/tiny").join(name);
    let mut all = vec![format!("train.steps={}", BEFORE + count)];
    all.extend(
        ["train.checkpoint_every=1000000000", "train.samples.count=0", "train.validate_every=0"]
            .map(String::from),
    );
    all.extend_from_slice(overrides);
    let config = RunConfig::read(path, &all).expect("a config of the repository");
    let _ = std::fs::remove_dir_all(run);
    let mut trainer = Trainer::create(config, run, bench_device()).expect("a run in a new folder");
    let (mut begun, mut taken) = (Instant::now(), Duration::ZERO);
    let mut observe = |event: Event| {
        if let Event::Step { step, .. } = event {
            if step == BEFORE {
                wait();
                begun = Instant::now();
            } else if step == BEFORE + count {
                wait();
                taken = begun.elapsed();
            }
        }
    };
    trainer.run(&AtomicBool::new(false), &mut observe).expect("a run that ends");
    taken
}

fn both_stages(criterion: &mut Criterion) {
    ldm_libtorch::keep_freed_memory();
    let folder = tempfile::tempdir().expect("a temporary folder");
    let (first, run) = (folder.path().join("first"), folder.path().join("run"));
    let _ = steps("first-stage-kl-f2.yaml", &[], &first, 1);
    let on_first = format!("model.params.first_stage_config.params.ckpt_path={}", first.display());
    let mut group = criterion.benchmark_group(format!("training step/f32/{}", device_name(bench_device())));
    group.sample_size(10).measurement_time(Duration::from_secs(10));
    for (name, overrides) in
        [("first-stage-kl-f2/8x3x16x16", vec![]), ("diffusion-class/8x4x8x8", vec![on_first])]
    {
        let file = format!("{}.yaml", name.split('/').next().expect("a name"));
        group.bench_function(name, |bencher| {
            bencher.iter_custom(|count| steps(&file, &overrides, &run, count));
        });
    }
    group.finish();
}

criterion_group!(benches, both_stages);
criterion_main!(benches);
