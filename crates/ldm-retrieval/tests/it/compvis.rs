//! Databases and searches of CompVis; `golden/generate.py` made the files.

use std::path::Path;

use ldm_retrieval::{EmbeddingIndex, IndexWriter, Search, add_compvis_file, compvis_files};
use ldm_testing::{Golden, assert_close};
use tch::{Device, Kind, Tensor};

fn golden() -> Golden {
    Golden::open(folder().join("searcher.safetensors"), Device::Cpu)
}

fn folder() -> &'static Path {
    Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/golden"))
}

/// The database of CompVis, converted.
fn database(folder_of_copy: &Path, partition: bool) -> EmbeddingIndex {
    let files = compvis_files(&folder().join("database")).unwrap();
    assert_eq!(files.len(), 2);
    let mut writer = IndexWriter::new(folder_of_copy.join("database.safetensors")).unwrap();
    for file in files {
        add_compvis_file(&mut writer, &file).unwrap();
    }
    writer.finish(None, partition).unwrap()
}

#[test]
fn names_are_ids_and_coordinates() {
    let folder = tempfile::tempdir().unwrap();
    let database = database(folder.path(), false);
    assert_eq!((database.len(), database.width()), (40, 12));
    let name = database.name(0).into_owned();
    let place = name.strip_prefix("image-00 [").and_then(|rest| rest.strip_suffix(']')).unwrap();
    let place: Vec<i64> = place.split(", ").map(|each| each.parse().unwrap()).collect();
    assert_eq!(place.len(), 4, "{name}");
    assert!(database.name(39).starts_with("image-39 ["));
    assert!(compvis_files(folder.path()).is_none(), "a folder of other files");
    assert_eq!(compvis_files(Path::new("one.npz")).unwrap(), [Path::new("one.npz")]);
}

#[test]
fn neighbors_and_context_equal_compvis() {
    let (folder, golden) = (tempfile::tempdir().unwrap(), golden());
    let database = database(folder.path(), false);
    let (context, found) = database.context(golden.get("queries"), 5, Search::Exact).unwrap();
    assert_close("context", &context, golden.get("c"), 1e-6);
    let indices: Vec<i64> = found.iter().flatten().map(|neighbor| neighbor.index as i64).collect();
    assert_eq!(indices, Vec::<i64>::try_from(golden.get("nns").flatten(0, -1)).unwrap());
    let scores: Vec<f64> = found.iter().flatten().map(|neighbor| neighbor.score).collect();
    assert_close(
        "scores",
        &Tensor::from_slice(&scores).to_kind(Kind::Float),
        &golden.get("scores").flatten(0, -1),
        1e-5,
    );
}

#[test]
fn a_partition_keeps_names_with_their_embeddings() {
    let (folder, golden) = (tempfile::tempdir().unwrap(), golden());
    let plain = database(folder.path(), false);
    let named = |database: &EmbeddingIndex| -> Vec<String> {
        let found = database.search(golden.get("queries"), 5, Search::Exact).unwrap();
        found.iter().flatten().map(|neighbor| database.name(neighbor.index).into_owned()).collect()
    };
    let expected = named(&plain);
    assert_eq!(named(&database(folder.path(), true)), expected);
}
