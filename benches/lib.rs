//! Shared code of the benchmarks of whole stages on published configs. Benchmarks of a single crate are in its own
//! `benches/`.

use std::path::Path;
use std::time::Duration;

use criterion::measurement::WallTime;
use criterion::{BenchmarkGroup, Criterion, SamplingMode};
use ldm_core::device::{bench_device, device_name};
use ldm_core::nn::skip_init;
use ldm_libtorch::{channels_last, prefers_channels_last};
use ldm_pipelines::{ModelConfig, ModelFile};
use tch::Tensor;
use tch::nn::VarStore;

/// Reads a config of the repository.
///
/// # Panics
/// When there is no such config.
pub fn config(name: &str) -> ModelConfig {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../configs/models").join(name);
    ModelFile::read(path, &[]).expect("a config of the repository").model
}

/// Builds a network in the memory format of inference, with at least `narrowest` channels. All weights have the same
/// small value; writing it gives each its own memory. The cost of a pass does not depend on the values.
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

/// A group of benchmarks that take seconds each: one warm-up run, and ten measured ones.
pub fn slow_group<'a>(criterion: &'a mut Criterion, name: &str) -> BenchmarkGroup<'a, WallTime> {
    let mut group = criterion.benchmark_group(format!("{name}/f32/{}", device_name(bench_device())));
    group.sample_size(10).sampling_mode(SamplingMode::Flat);
    group.warm_up_time(Duration::from_millis(100)).measurement_time(Duration::from_secs(1));
    group
}

/// Waits until a GPU is idle.
pub fn wait() {
    ldm_bench::wait(bench_device());
}

/// Formats a shape as `2x4x64x64`.
pub fn shape(tensor: &Tensor) -> String {
    ldm_bench::shape_text(&tensor.size())
}
