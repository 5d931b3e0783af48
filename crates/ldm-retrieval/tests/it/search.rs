//! Exact and partitioned search.

use std::collections::HashSet;

use ldm_retrieval::{EmbeddingIndex, Search, context};
use tch::{Kind, Tensor};

use crate::{clustered, noise, write};

fn indices(database: &EmbeddingIndex, queries: &Tensor, k: usize, search: Search) -> Vec<Vec<usize>> {
    let found = database.search(queries, k, search).unwrap();
    found.iter().map(|found| found.iter().map(|neighbor| neighbor.index).collect()).collect()
}

#[test]
fn exact_search_equals_sorting_all_scores() {
    let folder = tempfile::tempdir().unwrap();
    // More rows than a product of matrices has, and no multiple of them.
    let embeddings = noise(2, 9001, 24);
    let database = write(folder.path(), "all", &embeddings, false);
    let queries = noise(3, 300, 24);
    let unit = &queries / queries.linalg_norm(2., [1_i64].as_slice(), true, None);
    let rows = database.embeddings().unwrap().to_kind(Kind::Double);
    let scores = unit.to_kind(Kind::Double).matmul(&rows.tr());
    let (values, order) = scores.topk(7, 1, true, true);
    let expected: Vec<i64> = Vec::try_from(order.flatten(0, -1)).unwrap();
    let found = database.search(&queries, 7, Search::Exact).unwrap();
    let got: Vec<i64> = found.iter().flatten().map(|neighbor| neighbor.index as i64).collect();
    assert_eq!(got, expected);
    let scores: Vec<f64> = found.iter().flatten().map(|neighbor| neighbor.score).collect();
    let difference = (Tensor::from_slice(&scores) - values.flatten(0, -1)).abs().max().double_value(&[]);
    assert!(difference < 1e-12, "{difference}");
}

#[test]
fn equal_scores_are_in_the_order_of_the_images_whatever_else_is_asked() {
    let folder = tempfile::tempdir().unwrap();
    let one = noise(4, 1, 30);
    // Every third image is the same one, at other places of the matrix product.
    let embeddings = noise(5, 60, 30);
    for row in (0..60).step_by(3) {
        embeddings.get(row).copy_(&one.get(0));
    }
    let database = write(folder.path(), "ties", &embeddings, false);
    let queries = Tensor::cat(&[&one * 3., noise(6, 40, 30)], 0);
    let expected: Vec<usize> = (0..10).map(|each| 3 * each).collect();
    for count in [1, 2, 7, 41] {
        let found = indices(&database, &queries.narrow(0, 0, count), 10, Search::Exact);
        assert_eq!(found[0], expected, "{count} queries");
    }
}

#[test]
fn a_partition_finds_most_neighbors_in_clustered_data_and_is_deterministic() {
    let folder = tempfile::tempdir().unwrap();
    let embeddings = clustered(7, 6000, 32, 60);
    let database = write(folder.path(), "parts", &embeddings, true);
    let bytes = std::fs::read(database.path()).unwrap();
    let queries = clustered(8, 100, 32, 60);
    let exact = indices(&database, &queries, 10, Search::Exact);
    let found = indices(&database, &queries, 10, Search::Partitioned);
    let hits: usize = exact
        .iter()
        .zip(&found)
        .map(|(exact, found)| {
            let exact: HashSet<_> = exact.iter().collect();
            found.iter().filter(|index| exact.contains(index)).count()
        })
        .sum();
    let recall = hits as f64 / 1000.;
    assert!(recall > 0.9, "{recall}");
    // A query is answered alike alone and among others.
    for query in [0, 50, 99] {
        let alone = indices(&database, &queries.narrow(0, query, 1), 10, Search::Partitioned);
        assert_eq!(alone[0], found[query as usize]);
    }
    write(folder.path(), "parts", &embeddings, true);
    assert!(std::fs::read(database.path()).unwrap() == bytes, "two partitions of the same embeddings differ");
}

#[test]
fn small_leaves_are_filled_up_to_k() {
    let folder = tempfile::tempdir().unwrap();
    let database = write(folder.path(), "few", &noise(9, 30, 8), true);
    for k in [1, 12, 30] {
        let found = indices(&database, &noise(10, 4, 8), k, Search::Partitioned);
        assert!(found.iter().all(|found| found.iter().collect::<HashSet<_>>().len() == k));
    }
    let found = indices(&database, &noise(10, 4, 8), 30, Search::Partitioned);
    assert_eq!(found, indices(&database, &noise(10, 4, 8), 30, Search::Exact), "all images, in order");
}

#[test]
fn a_context_without_neighbors_is_the_query() {
    let query = noise(11, 3, 5);
    let made = context(&query).unwrap();
    assert_eq!(made.size(), [3, 1, 5]);
    let lengths = made.linalg_norm(2., [2_i64].as_slice(), false, None);
    assert!((lengths - 1.).abs().max().double_value(&[]) < 1e-6);
}
