//! Neighbors of a training set.

use ldm_retrieval::{EmbeddingIndex, IndexWriter, NeighborTable, Search};
use tch::Tensor;

use crate::{noise, write};

#[test]
fn an_image_is_not_its_own_neighbor() {
    let folder = tempfile::tempdir().unwrap();
    let database = write(folder.path(), "all", &noise(1, 50, 8), false);
    let path = folder.path().join("table.safetensors");
    let mut done = Vec::new();
    NeighborTable::write(&path, &database, &database, 4, Search::Exact, &mut |images| done.push(images))
        .unwrap();
    assert_eq!(done, [50]);
    let table = NeighborTable::open(&path, database.path(), None).unwrap();
    assert_eq!((table.len(), table.k()), (50, 4));
    let all = database.embeddings().unwrap();
    for image in 0..50 {
        let name = database.name(image);
        let neighbors: Vec<usize> = table.neighbors(&name).unwrap().collect();
        let found = database.search(&all.narrow(0, image as i64, 1), 5, Search::Exact).unwrap();
        assert_eq!(found[0][0].index, image);
        assert_eq!(neighbors, found[0][1..].iter().map(|neighbor| neighbor.index).collect::<Vec<_>>());
    }
    assert!(table.neighbors("absent.png").is_none());
    let fewer = NeighborTable::open(&path, database.path(), Some(2)).unwrap();
    let name = database.name(3);
    assert_eq!(fewer.neighbors(&name).unwrap().count(), 2);
}

#[test]
fn images_of_other_names_keep_all_neighbors() {
    let folder = tempfile::tempdir().unwrap();
    let database = write(folder.path(), "all", &noise(1, 20, 8), false);
    let mut writer = IndexWriter::new(folder.path().join("train.safetensors")).unwrap();
    writer.push(&noise(1, 20, 8).narrow(0, 4, 1), &["other.png"]).unwrap();
    let images = writer.finish(None, false).unwrap();
    let path = folder.path().join("table.safetensors");
    NeighborTable::write(&path, &images, &database, 3, Search::Exact, &mut |_| {}).unwrap();
    let table = NeighborTable::open(&path, database.path(), None).unwrap();
    assert_eq!(table.neighbors("other.png").unwrap().next(), Some(4), "the same image under another name");
}

#[test]
fn other_tables_are_refused() {
    let folder = tempfile::tempdir().unwrap();
    let database = write(folder.path(), "all", &noise(1, 20, 8), false);
    let other = write(folder.path(), "other", &noise(2, 20, 8), false);
    let path = folder.path().join("table.safetensors");
    let write_table = |images: &EmbeddingIndex, k| {
        NeighborTable::write(&path, images, &database, k, Search::Exact, &mut |_| {})
    };
    for k in [0, 20] {
        let error = write_table(&database, k).unwrap_err().to_string();
        assert_eq!(error, format!("k: expected 1 to 19, the other images of the database, got {k}"));
    }
    write_table(&database, 3).unwrap();
    let open = |path: &std::path::Path, database: &EmbeddingIndex, k| {
        NeighborTable::open(path, database.path(), k).unwrap_err().to_string()
    };
    let error = open(&path, &other, None);
    assert!(error.ends_with("other.safetensors, got those in another database"), "{error}");
    let error = open(&path, &database, Some(4));
    assert!(error.starts_with("k: expected 1 to 3, the neighbors in "), "{error}");
    let error = open(other.path(), &database, None);
    assert!(
        error.contains("expected a table of neighbors, got another file; try ldm retrieve neighbors"),
        "{error}"
    );

    let mut writer = IndexWriter::new(folder.path().join("twice.safetensors")).unwrap();
    writer.push(&Tensor::from_slice(&[1_f32; 16]).view([2, 8]), &["a.png", "a.png"]).unwrap();
    write_table(&writer.finish(None, false).unwrap(), 3).unwrap();
    let error = open(&path, &database, None);
    assert!(error.contains("expected images with different names, got two of the same name"), "{error}");
}
