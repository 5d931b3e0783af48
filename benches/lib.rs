//! Benchmarks of whole stages of ldm, on the published configs: the models they share. What one crate does alone is
//! measured in that crate's own `benches/`.

use std::path::Path;
use std::time::Duration;

use criterion::measurement::WallTime;
use criterion::{BenchmarkGroup, Criterion, SamplingMode};
use ldm_core::device::{bench_device, device_name};
use ldm_core::nn::skip_init;
use ldm_libtorch::{channels_last, prefers_channels_last};
use ldm_pipelines::{ModelConfig, ModelFile};
use tch::nn::VarStore;
use tch::Tensor;

/// A config of the repository.
///
/// # Panics
/// When there is none of that name.
pub fn config(name: &str) -> ModelConfig {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../configs").join(name);
    ModelFile::read(path, &[]).expect("a config of the repository").model
}

/// A network in the layout in which it answers, `narrowest` channels wide at its narrowest. Its weights are all one small
/// number, which is written, so that each has its own memory: what a pass costs does not depend on them.
pub fn network<T>(narrowest: i64, build: impl FnOnce(&VarStore) -> T) -> (VarStore, T) {
    let vs = VarStore::new(bench_device());
    let network = skip_init(|| build(&vs));
    for mut tensor in vs.variables().into_values() {
        let _ = tch::no_grad(|| tensor.fill_(0.01));
    }
    if prefers_channels_last(vs.device(), narrowest, false) {
        channels_last(&vs);
    }
    (vs, network)
}

/// A group of things that take seconds each: a run to warm up, and ten that count. `name` holds what is common to them.
pub fn slow_group<'a>(criterion: &'a mut Criterion, name: &str) -> BenchmarkGroup<'a, WallTime> {
    let mut group = criterion.benchmark_group(format!("{name}/f32/{}", device_name(bench_device())));
    group.sample_size(10).sampling_mode(SamplingMode::Flat);
    group.warm_up_time(Duration::from_millis(100)).measurement_time(Duration::from_secs(1));
    group
}

/// Waits for a GPU to be done.
pub fn wait() {
    ldm_bench::wait(bench_device());
}

/// `2x4x64x64`
pub fn shape(tensor: &Tensor) -> String {
    ldm_bench::shape_text(&tensor.size())
}
