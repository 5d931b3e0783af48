//! Retrieval against CompVis' `knn2img.py`; `golden/generate_knn2img.py` made the file.

use std::collections::BTreeMap;
use std::path::Path;

use ldm_checkpoint::Shapes;
use ldm_conditioning::Clip;
use ldm_core::device::test_device;
use ldm_core::{Prompt, image};
use ldm_retrieval::{IndexWriter, Search, context};
use ldm_study::Silent;
use ldm_study::retrieval::{IndexOptions, RetrievalQuery, Retriever, find_neighbors, index_images};
use ldm_testing::{Golden, assert_close, filled};
use tch::{Device, Kind, Tensor};

const OPTIONS: IndexOptions = IndexOptions { batch_size: 4, partition: false, strict: false };

fn golden() -> Golden {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/golden/knn2img.safetensors");
    Golden::open(path, Device::Cpu)
}

/// Writes the CLIP of the golden file as a folder of transformers.
fn clip(golden: &Golden, folder: &Path) -> Clip {
    let shapes: Shapes = serde_json::from_str(golden.metadata("shapes")).unwrap();
    ldm_checkpoint::save(folder.join("model.safetensors"), &filled(&shapes, 6), &BTreeMap::new()).unwrap();
    std::fs::write(folder.join("config.json"), golden.metadata("config")).unwrap();
    Clip::open(folder, test_device()).unwrap()
}

/// Writes the images of the golden file, of 4 x 4 fields, as PNG of 224 pixels, in a folder.
fn images(golden: &Golden, folder: &Path) {
    std::fs::create_dir_all(folder).unwrap();
    let fields = golden.get("fields").to_kind(Kind::Float) / 127.5 - 1.;
    let images = fields.upsample_nearest2d([224, 224], None, None);
    for index in 0..images.size()[0] {
        let path = folder.join(format!("{index:02}.png"));
        image::write_png(&path, &images.get(index), &[]).unwrap();
    }
}

#[test]
fn embeddings_neighbors_and_context_equal_compvis() {
    let (golden, folder) = (golden(), tempfile::tempdir().unwrap());
    let clip = clip(&golden, folder.path());
    let photos = folder.path().join("photos");
    images(&golden, &photos);
    let out = folder.path().join("photos.safetensors");
    let database = index_images(&photos, Some(&clip), OPTIONS, &out, &Silent).unwrap();
    assert_eq!((database.len(), &*database.name(3)), (10, "03.png"));
    let embedding = golden.get("embedding");
    let unit = embedding / embedding.linalg_norm(2., [1_i64].as_slice(), true, None);
    assert_close("embeddings", &database.embeddings().unwrap(), &unit, 1e-5);

    let tokens = Prompt { tokens: Some(golden.get("tokens").shallow_clone()), ..Prompt::default() };
    let text = clip.texts(&tokens).unwrap();
    assert_close("without neighbors", &context(&text).unwrap(), golden.get("alone"), 1e-5);
    let (made, found) = database.context(&text, 4, Search::Exact).unwrap();
    let indices: Vec<i64> = found.iter().flatten().map(|neighbor| neighbor.index as i64).collect();
    assert_eq!(indices, Vec::<i64>::try_from(golden.get("nns").flatten(0, -1)).unwrap());
    assert_close("context", &made, golden.get("c"), 1e-5);
}

#[test]
fn an_image_finds_itself_and_a_table_does_not() {
    let (golden, folder) = (golden(), tempfile::tempdir().unwrap());
    let network = clip(&golden, folder.path());
    let photos = folder.path().join("photos");
    images(&golden, &photos);
    std::fs::write(photos.join("broken.png"), "no image").unwrap();
    let out = folder.path().join("photos.safetensors");
    let strict = IndexOptions { strict: true, ..OPTIONS };
    let error = index_images(&photos, Some(&network), strict, &out, &Silent).unwrap_err().to_string();
    assert!(error.contains("broken.png") && !out.exists(), "{error}");
    let error = index_images(&photos, None, OPTIONS, &out, &Silent).unwrap_err().to_string();
    assert_eq!(error, "--clip: expected a CLIP model for images, got none");
    let partition = IndexOptions { partition: true, ..OPTIONS };
    let database = index_images(&photos, Some(&network), partition, &out, &Silent).unwrap();
    assert_eq!(database.len(), 10, "the unreadable image is left out");

    let retriever = Retriever::new(network).with_database(&out, 3, Search::Exact).unwrap();
    let query = RetrievalQuery::Image(photos.join("05.png"));
    let (context, neighbors) = retriever.context(&query, &Silent).unwrap();
    assert_eq!((context.size(), &*neighbors[0][0].name), (vec![1, 4, 12], "05.png"));
    assert_close("itself", &context.narrow(1, 0, 1), &context.narrow(1, 1, 1), 1e-5);

    let table = folder.path().join("table.safetensors");
    find_neighbors(&out, &out, 2, Search::Exact, &table, &Silent).unwrap();
    let table = ldm_retrieval::NeighborTable::open(&table, &out, None).unwrap();
    let first = table.neighbors("05.png").unwrap().next().unwrap();
    assert_eq!(table.database().name(first), neighbors[0][1].name);
}

#[test]
fn databases_of_another_clip_are_refused() {
    let (golden, folder) = (golden(), tempfile::tempdir().unwrap());
    let network = clip(&golden, folder.path());
    let write = |name: &str, clip: Option<&str>, width: i64| {
        let path = folder.path().join(name);
        let mut writer = IndexWriter::new(&path).unwrap();
        writer.push(&Tensor::ones([1, width], (Kind::Float, Device::Cpu)), &["a.png"]).unwrap();
        writer.finish(clip, false).unwrap();
        path
    };
    let (other, wide) = (write("other", Some("other"), 12), write("wide", None, 13));
    let own = write("own", Some(&network.fingerprint()), 12);
    let mut retriever = Retriever::new(network);
    for (path, expected) in [
        (&other, "expected embeddings of this CLIP, got those of another one"),
        (&wide, "expected embeddings of 12 components, as CLIP's, got 13"),
    ] {
        let error = retriever.with_database(path, 1, Search::Exact).unwrap_err().to_string();
        assert!(error.contains(expected), "{error}");
        retriever = Retriever::new(clip(&golden, folder.path()));
    }
    let table = folder.path().join("table");
    let error = find_neighbors(&own, &other, 1, Search::Exact, &table, &Silent).unwrap_err().to_string();
    assert!(error.contains("expected embeddings of the CLIP of "), "{error}");
}
