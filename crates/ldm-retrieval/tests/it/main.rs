//! Databases of embeddings: search, parity with CompVis, and refusals.

#![allow(clippy::unwrap_used, reason = "a panic is a failed test, also outside `#[test]` functions")]

mod compvis;
mod refusals;
mod search;
mod table;

use std::path::Path;

use ldm_core::NoiseSource;
use ldm_core::noise::Seeded;
use ldm_retrieval::{EmbeddingIndex, IndexWriter};
use tch::{Device, Kind, Tensor};

/// Gaussian noise, `[count, width]`.
fn noise(seed: u64, count: i64, width: i64) -> Tensor {
    Seeded::new([seed]).like(&Tensor::zeros([1, count, width], (Kind::Float, Device::Cpu))).squeeze_dim(0)
}

/// Embeddings around `clusters` centers.
fn clustered(seed: u64, count: i64, width: i64, clusters: i64) -> Tensor {
    let of = Tensor::arange(count, (Kind::Int64, Device::Cpu)) * 7919_i64;
    noise(1, clusters, width).index_select(0, &of.remainder(clusters)) + noise(seed, count, width) * 0.5
}

fn names(count: i64) -> Vec<String> {
    (0..count).map(|index| format!("image-{index:02}")).collect()
}

/// Writes a database at `folder/NAME.safetensors`.
fn write(folder: &Path, name: &str, embeddings: &Tensor, partition: bool) -> EmbeddingIndex {
    let mut writer = IndexWriter::new(folder.join(name).with_extension("safetensors")).unwrap();
    let names = names(embeddings.size()[0]);
    for (rows, names) in embeddings.split(16, 0).iter().zip(names.chunks(16)) {
        writer.push(rows, names).unwrap();
    }
    writer.finish(None, partition).unwrap()
}
