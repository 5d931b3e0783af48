//! Damaged and hostile databases, and wrong queries.

use std::collections::BTreeMap;
use std::path::Path;

use ldm_core::Result;
use ldm_retrieval::{EmbeddingIndex, IndexWriter, Search, add_compvis_file, context};
use tch::{Device, Kind, Tensor};

use crate::{noise, write};

/// Writes a database of these tensors and opens it.
fn open(folder: &Path, tensors: &[(&str, Tensor)]) -> Result<EmbeddingIndex> {
    let path = folder.join("made.safetensors");
    let tensors: Vec<(String, Tensor)> =
        tensors.iter().map(|(name, tensor)| ((*name).to_owned(), tensor.shallow_clone())).collect();
    let metadata = BTreeMap::from([("format".to_owned(), "ldm embeddings 1".to_owned())]);
    ldm_checkpoint::save(&path, &tensors, &metadata).unwrap();
    EmbeddingIndex::open(path)
}

#[test]
fn damaged_databases_are_refused() {
    let folder = tempfile::tempdir().unwrap();
    let embeddings = || ("embeddings", noise(1, 3, 4));
    let names = || ("names", Tensor::from_slice(b"abc"));
    let ends = |ends: &[i64]| ("name_ends", Tensor::from_slice(ends));
    let leaves = |ends: &[i64]| ("leaf_ends", Tensor::from_slice(ends));
    let whole = || vec![embeddings(), names(), ends(&[1, 1, 3])];
    let database = open(folder.path(), &whole()).unwrap();
    assert_eq!((database.name(0), database.name(1), database.name(2)), ("a".into(), "".into(), "bc".into()));
    let with = |more: [(&'static str, Tensor); 2]| whole().into_iter().chain(more).collect::<Vec<_>>();
    assert!(open(folder.path(), &with([leaves(&[1, 3]), ("centroids", noise(2, 2, 4))])).is_ok());
    for (tensors, expected) in [
        (vec![names(), ends(&[1, 2, 3])], "tensor `embeddings`: expected Float of 2 axes, got none"),
        (
            vec![("embeddings", noise(1, 3, 4).to_kind(Kind::Half)), names(), ends(&[1, 2, 3])],
            "tensor `embeddings`: expected Float of 2 axes, got [3, 4] of Half",
        ),
        (
            vec![("embeddings", noise(1, 3, 4).view([-1])), names(), ends(&[1, 2, 3])],
            "tensor `embeddings`: expected Float of 2 axes, got [12] of Float",
        ),
        (
            vec![
                ("embeddings", Tensor::zeros([3, 0], (Kind::Float, Device::Cpu))),
                names(),
                ends(&[1, 2, 3]),
            ],
            "tensor `embeddings`: expected Float of 2 axes, got [3, 0] of Float",
        ),
        (vec![embeddings(), names(), ends(&[2, 1, 3])], "expected names of 3 images, got damaged ones"),
        (vec![embeddings(), names(), ends(&[-1, 2, 3])], "expected names of 3 images, got damaged ones"),
        (vec![embeddings(), names(), ends(&[1, 2, 4])], "expected names of 3 images, got damaged ones"),
        (vec![embeddings(), names(), ends(&[1, 3])], "expected names of 3 images, got damaged ones"),
        (with([leaves(&[1, 2]), ("centroids", noise(2, 2, 4))]), "expected a partition of 3 embeddings"),
        (with([leaves(&[3, 1]), ("centroids", noise(2, 2, 4))]), "expected a partition of 3 embeddings"),
        (with([leaves(&[1, 3]), ("centroids", noise(2, 3, 4))]), "expected a partition of 3 embeddings"),
        (with([leaves(&[1, 3]), ("other", noise(2, 3, 4))]), "tensor `centroids`: expected Float of 2 axes"),
    ] {
        let error = open(folder.path(), &tensors).unwrap_err().to_string();
        assert!(error.contains(expected) && !error.contains('\n'), "{error}");
    }
    let other = folder.path().join("other.safetensors");
    ldm_checkpoint::save(&other, &[("embeddings".into(), noise(1, 3, 4))], &BTreeMap::new()).unwrap();
    let error = EmbeddingIndex::open(&other).unwrap_err().to_string();
    assert!(
        error.contains("expected a database of embeddings, got another file; try ldm retrieve index"),
        "{error}"
    );
    let nan = Tensor::from_slice(&[f32::NAN; 12]).view([3, 4]);
    let database = open(folder.path(), &[("embeddings", nan), names(), ends(&[1, 2, 3])]).unwrap();
    let error = database.search(&noise(3, 1, 4), 1, Search::Exact).unwrap_err().to_string();
    assert!(error.contains("expected finite embeddings, got NaN or Inf"), "{error}");
}

#[test]
fn wrong_queries_are_refused() {
    let folder = tempfile::tempdir().unwrap();
    let database = write(folder.path(), "all", &noise(1, 3, 4), false);
    let search = |queries: &Tensor, k| database.search(queries, k, Search::Exact).unwrap_err().to_string();
    for k in [0, 4] {
        let error = search(&noise(2, 1, 4), k);
        assert!(
            error.starts_with("k: expected 1 to 3, the images of ") && error.ends_with(&format!("got {k}"))
        );
    }
    let error = search(&noise(2, 1, 5), 1);
    assert!(error.starts_with("queries: expected shape [Q, 4], as the embeddings of "), "{error}");
    let zero = "queries: expected finite embeddings other than zero, got zero, NaN or Inf";
    assert_eq!(search(&noise(2, 1, 4).zeros_like(), 1), zero);
    assert_eq!(context(&(noise(2, 1, 4) / 0.)).unwrap_err().to_string(), zero);
    let error = database.check_clip("", 5).unwrap_err().to_string();
    assert!(error.contains("expected embeddings of 5 components, as CLIP's, got 4"), "{error}");
}

#[test]
fn another_clip_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let mut writer = IndexWriter::new(folder.path().join("a.safetensors")).unwrap();
    writer.push(&noise(1, 1, 4), &[""]).unwrap();
    let database = writer.finish(Some("one"), false).unwrap();
    assert_eq!((database.clip(), database.name(0)), (Some("one"), "0".into()));
    database.check_clip("one", 4).unwrap();
    let error = database.check_clip("two", 4).unwrap_err().to_string();
    assert!(error.contains("expected embeddings of this CLIP, got those of another one"), "{error}");
}

#[test]
fn images_without_an_embedding_are_named_and_nothing_is_written() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("a.safetensors");
    let mut writer = IndexWriter::new(&path).unwrap();
    let rows = noise(1, 2, 4);
    let _ = rows.get(1).fill_(0.);
    let error = writer.push(&rows, &["a.png", "b.png"]).unwrap_err().to_string();
    assert_eq!(error, "b.png: expected an embedding other than zero, got zero, NaN or Inf");
    writer.push(&noise(1, 2, 4), &["a.png", "b.png"]).unwrap();
    assert!(writer.push(&noise(1, 2, 5), &["a.png", "b.png"]).is_err());
    assert!(writer.push(&noise(1, 2, 4), &["a.png"]).is_err());
    drop(writer);
    assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 0);
    let error = IndexWriter::new(&path).unwrap().finish(None, true).unwrap_err().to_string();
    assert!(error.contains("expected embeddings of at least one image, got none"), "{error}");
}

#[test]
fn damaged_databases_of_compvis_are_refused() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("a.npz");
    let ids = || ("img_id", Tensor::from_slice(&[4_i64, 5, 6]));
    for (arrays, expected) in [
        (vec![ids()], "`embedding`: expected an array of this name, got img_id"),
        (vec![("embedding", noise(1, 3, 4))], "`img_id`: expected an array of this name, got embedding"),
        (
            vec![("embedding", noise(1, 3, 4).view([-1])), ids()],
            "`embedding`: expected [N, D] floats, got [12]",
        ),
        (
            vec![("embedding", Tensor::zeros([3, 0], (Kind::Float, Device::Cpu))), ids()],
            "`embedding`: expected [N, D] floats, got [3, 0]",
        ),
        (
            vec![("embedding", noise(1, 3, 4).to_kind(Kind::Int64)), ids()],
            "`embedding`: expected [N, D] floats, got [3, 4] of Int64",
        ),
        (vec![("embedding", noise(1, 2, 4)), ids()], "`img_id`: expected 2 names, as of `embedding`, got 3"),
        (
            vec![("embedding", noise(1, 3, 4)), ids(), ("patch_coords", noise(1, 2, 4))],
            "`patch_coords`: expected [3, …], as of `embedding`, got [2, 4]",
        ),
    ] {
        let arrays: Vec<(String, Tensor)> =
            arrays.into_iter().map(|(name, array)| (name.to_owned(), array)).collect();
        ldm_checkpoint::save_npz(&path, &arrays).unwrap();
        let mut writer = IndexWriter::new(folder.path().join("out.safetensors")).unwrap();
        let error = add_compvis_file(&mut writer, &path).unwrap_err().to_string();
        assert!(error.contains(expected) && !error.contains('\n'), "{error}");
    }
}
