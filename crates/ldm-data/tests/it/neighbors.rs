//! Neighbors of stored images.

use std::path::Path;
use std::sync::Arc;

use image::RgbImage;
use ldm_data::{
    Dataset, Example, ImagesConfig, Loader, LoaderConfig, NeighborsConfig, StoredImages, TransformConfig,
    collate,
};
use ldm_retrieval::{IndexWriter, NeighborTable, Search};
use tch::Tensor;

/// A folder of three images, and a table of two neighbors of each.
fn config(folder: &Path) -> ImagesConfig {
    let images = folder.join("images");
    std::fs::create_dir(&images).unwrap();
    for name in ["a.png", "b.png", "c.png"] {
        RgbImage::new(4, 4).save(images.join(name)).unwrap();
    }
    let rows = Tensor::from_slice(&[1_f32, 0., 0.9, 0.1, 0.1, 0.9]).view([3, 2]);
    let mut writer = IndexWriter::new(folder.join("database.safetensors")).unwrap();
    writer.push(&rows, &["a.png", "b.png", "c.png"]).unwrap();
    let database = writer.finish(None, false).unwrap();
    let table = folder.join("table.safetensors");
    NeighborTable::write(&table, &database, &database, 2, Search::Exact, &mut |_| {}).unwrap();
    let neighbors = NeighborsConfig { database: database.path().into(), table, k: None };
    let config = ImagesConfig::new(images.to_str().unwrap(), TransformConfig::square(4));
    ImagesConfig { neighbors: Some(neighbors), ..config }
}

#[test]
fn a_batch_has_the_embeddings_of_the_neighbors_nearest_first() {
    let folder = tempfile::tempdir().unwrap();
    let set = StoredImages::open(config(folder.path()), Path::new("")).unwrap();
    let example = set.get(0, 0).unwrap();
    let [near, far] = &example.neighbors.clone().unwrap()[..] else { panic!("two neighbors") };
    assert!(near[0] > 0.9 && far[0] < 0.2, "b.png, then c.png: {near:?}, {far:?}");
    assert_eq!(set.without_image(0, 0).unwrap().neighbors, example.neighbors);

    let mut loader = Loader::one_pass(Arc::new(set), LoaderConfig::new(3, 0)).unwrap();
    let batch = loader.next().unwrap().unwrap();
    assert_eq!(batch.prompt.embedding.unwrap().size(), [3, 2, 2]);
}

#[test]
fn neighbors_change_the_fingerprint() {
    let folder = tempfile::tempdir().unwrap();
    let config = config(folder.path());
    let of = |neighbors: Option<NeighborsConfig>| {
        let config = ImagesConfig { neighbors, ..config.clone() };
        StoredImages::open(config, Path::new("")).unwrap().fingerprint()
    };
    let with = |k| config.neighbors.clone().map(|neighbors| NeighborsConfig { k, ..neighbors });
    let all = [None, with(None), with(Some(1))].map(of);
    assert!(all[0] != all[1] && all[1] != all[2] && all[0] != all[2]);
    assert_eq!(of(with(None)), of(with(Some(2))), "both are two");
}

#[test]
fn examples_of_other_neighbors_make_no_batch() {
    let example = |name: &str, neighbors| Example {
        neighbors,
        name: name.into(),
        ..Example::new(vec![0.; 3], [3, 1, 1])
    };
    let two = Some(vec![vec![1.; 2]; 2]);
    for (other, expected) in [
        (None, "b.png: expected a neighbor as a.png of the same batch has one, got none"),
        (
            Some(vec![vec![1.; 2]]),
            "b.png: expected as many and as long neighbors as those of a.png, got others",
        ),
        (
            Some(vec![vec![1.; 2], vec![1.]]),
            "b.png: expected as many and as long neighbors as those of a.png, got others",
        ),
    ] {
        let error = collate(vec![example("a.png", two.clone()), example("b.png", other)]).unwrap_err();
        assert_eq!(error.to_string(), expected);
    }
}
