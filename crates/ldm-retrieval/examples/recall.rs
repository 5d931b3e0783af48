//! Recall and speed of both searches on made-up embeddings, the table of `docs/guide/retrieval.md`:
//!
//! ```sh
//! cargo run --release -p ldm-retrieval --example recall
//! ```
#![allow(clippy::print_stdout)]

use std::collections::HashSet;
use std::path::Path;
use std::time::Instant;

use ldm_core::noise::Seeded;
use ldm_core::{NoiseSource, Result};
use ldm_retrieval::{EmbeddingIndex, IndexWriter, Search};
use tch::{Device, Kind, Tensor};

const WIDTH: i64 = 512;
/// Directions of variation that all clusters share.
const DIRECTIONS: i64 = 64;
const NEIGHBORS: usize = 20;

/// Vectors with an expected length of `length`.
fn noise(seed: u64, count: i64, width: i64, length: f64) -> Tensor {
    let unit = Tensor::zeros([1, count, width], (Kind::Float, Device::Cpu));
    Seeded::new([seed]).like(&unit).squeeze_dim(0) * (length / (width as f64).sqrt())
}

/// Embeddings in clusters of 50: a center of length 1, a variation along the shared directions, and noise of length 0.2.
fn embeddings(seed: u64, count: i64, clusters: i64, variation: f64) -> Tensor {
    let of = Tensor::arange(count, (Kind::Int64, Device::Cpu)) * 7919_i64;
    let centers = noise(1, clusters, WIDTH, 1.).index_select(0, &of.remainder(clusters));
    let directions = noise(2, DIRECTIONS, WIDTH, 1.);
    centers
        + noise(seed, count, DIRECTIONS, variation).matmul(&directions)
        + noise(seed + 1, count, WIDTH, 0.2)
}

fn write(path: &Path, embeddings: &Tensor) -> Result<EmbeddingIndex> {
    let mut writer = IndexWriter::new(path)?;
    let names: Vec<String> = (0..embeddings.size()[0]).map(|index| index.to_string()).collect();
    writer.push(embeddings, &names)?;
    writer.finish(None, true)
}

fn main() -> Result<()> {
    let folder = tempfile::tempdir().expect("a temporary folder");
    println!(
        "| images | variation | partition made in | search | recall | queries/s, one by one | queries/s, 256 at once |"
    );
    println!("|---|---|---|---|---|---|---|");
    for (count, variation) in [(20_000, 0.6), (20_000, 1.2), (100_000, 0.6), (100_000, 1.2)] {
        let clusters = count / 50;
        let all = embeddings(3, count, clusters, variation);
        let start = Instant::now();
        let database = write(&folder.path().join("all.safetensors"), &all)?;
        let made = start.elapsed().as_secs_f64();
        let queries = embeddings(5, 256, clusters, variation);
        let mut exact: Vec<HashSet<usize>> = Vec::new();
        for how in [Search::Exact, Search::Partitioned] {
            let start = Instant::now();
            for query in 0..64 {
                database.search(&queries.narrow(0, query, 1), NEIGHBORS, how)?;
            }
            let alone = 64. / start.elapsed().as_secs_f64();
            let start = Instant::now();
            let found = database.search(&queries, NEIGHBORS, how)?;
            let together = 256. / start.elapsed().as_secs_f64();
            let found: Vec<HashSet<usize>> =
                found.iter().map(|found| found.iter().map(|neighbor| neighbor.index).collect()).collect();
            if how == Search::Exact {
                exact.clone_from(&found);
            }
            let hits: usize =
                exact.iter().zip(&found).map(|(exact, found)| exact.intersection(found).count()).sum();
            let recall = hits as f64 / (NEIGHBORS * 256) as f64;
            println!(
                "| {count} | {variation} | {made:.1} s | {how:?} | {recall:.3} | {alone:.0} | {together:.0} |"
            );
        }
    }
    Ok(())
}
