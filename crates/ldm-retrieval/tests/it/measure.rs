//! Recall and speed of both searches, for `docs/guide/retrieval.md`.

use std::collections::HashSet;
use std::time::Instant;

use ldm_retrieval::Search;
use tch::{Device, Kind, Tensor};

use crate::{noise, write};

/// Embeddings of unit length in clusters: a center, a variation of 64 directions that all clusters share, and noise.
/// Of lengths 1, `variation` and 0.2.
fn embeddings(seed: u64, count: i64, clusters: i64, variation: f64) -> Tensor {
    let width = 512;
    let of = Tensor::arange(count, (Kind::Int64, Device::Cpu)) * 7919_i64;
    let length = |x: Tensor, length: f64, components: i64| x * (length / (components as f64).sqrt());
    let centers = length(noise(1, clusters, width), 1., width);
    let directions = length(noise(2, 64, width), 1., width);
    let varied = length(noise(seed, count, 64), variation, 64).matmul(&directions);
    centers.index_select(0, &of.remainder(clusters))
        + varied
        + length(noise(seed + 1, count, width), 0.2, width)
}

#[test]
#[ignore = "a measurement of minutes"]
#[allow(clippy::print_stdout, reason = "the measurement")]
fn recall_and_speed() {
    let folder = tempfile::tempdir().unwrap();
    println!("| images | data | index | recall@20 | queries/s, one by one | queries/s, 256 at once |");
    for (count, variation) in [(20_000, 0.6), (20_000, 1.2), (100_000, 0.6), (100_000, 1.2)] {
        let all = embeddings(3, count, count / 50, variation);
        let start = Instant::now();
        let database = write(folder.path(), "all", &all, true);
        let built = start.elapsed().as_secs_f64();
        let queries = embeddings(5, 256, count / 50, variation);
        let mut exact = Vec::new();
        for how in [Search::Exact, Search::Partitioned] {
            let start = Instant::now();
            for query in 0..64 {
                database.search(&queries.narrow(0, query, 1), 20, how).unwrap();
            }
            let alone = 64. / start.elapsed().as_secs_f64();
            let start = Instant::now();
            let found = database.search(&queries, 20, how).unwrap();
            let together = 256. / start.elapsed().as_secs_f64();
            let found: Vec<HashSet<usize>> =
                found.iter().map(|found| found.iter().map(|neighbor| neighbor.index).collect()).collect();
            if how == Search::Exact {
                exact.clone_from(&found);
            }
            let hits: usize =
                exact.iter().zip(&found).map(|(exact, found)| exact.intersection(found).count()).sum();
            let recall = hits as f64 / (20. * 256.);
            println!(
                "| {count} | {variation} | {how:?}, written with partition in {built:.1} s | {recall:.3} | {alone:.0} | {together:.0} |"
            );
        }
    }
}
