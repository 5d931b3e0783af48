//! Search of 20 000 embeddings of 512 components: all of them, and the nearest leaves.

#![allow(missing_docs, reason = "criterion's macro makes a function without any")]

use criterion::{BenchmarkId, Criterion, criterion_group, criterion_main};
use ldm_core::NoiseSource;
use ldm_core::noise::Seeded;
use ldm_retrieval::{IndexWriter, Search};
use tch::{Device, Kind, Tensor};

fn noise(seed: u64, count: i64) -> Tensor {
    Seeded::new([seed]).like(&Tensor::zeros([1, count, 512], (Kind::Float, Device::Cpu))).squeeze_dim(0)
}

fn search(c: &mut Criterion) {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let mut writer = IndexWriter::new(folder.path().join("database.safetensors")).expect("a writable folder");
    let names: Vec<String> = (0..20_000).map(|index| index.to_string()).collect();
    writer.push(&noise(1, 20_000), &names).expect("finite embeddings");
    let database = writer.finish(None, true).expect("a writable folder");
    let mut group = c.benchmark_group("20 000 embeddings of 512 in f32 on the CPU");
    group.sample_size(10);
    for queries in [1, 64] {
        for (name, how) in [("exact", Search::Exact), ("partitioned", Search::Partitioned)] {
            let asked = noise(2, queries);
            group.bench_function(BenchmarkId::new(name, queries), |b| {
                b.iter(|| database.search(&asked, 10, how).expect("valid queries"));
            });
        }
    }
    group.finish();
}

criterion_group!(benches, search);
criterion_main!(benches);
