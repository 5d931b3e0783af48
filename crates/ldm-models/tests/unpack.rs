//! Unpacking: once, again where a file changed, and never over the user's own folder of that name.

use std::fs;

use ldm_models::{ALL, EMOJI, EmbeddedModel};

const SMALL: EmbeddedModel = EmbeddedModel {
    name: "small",
    summary: "a test",
    version: "7",
    files: &[("a.txt", b"one"), ("folder/b.txt", b"two")],
};

#[test]
fn a_model_is_unpacked_once() {
    let folder = tempfile::tempdir().unwrap();
    let path = SMALL.unpack_into(folder.path()).unwrap();
    assert_eq!(path, folder.path().join("small-7/small"));
    assert_eq!(fs::read(path.join("a.txt")).unwrap(), b"one");
    assert_eq!(fs::read(path.join("folder/b.txt")).unwrap(), b"two");
    let written = || fs::metadata(path.join("a.txt")).unwrap().modified().unwrap();
    let before = written();
    assert_eq!(SMALL.unpack_into(folder.path()).unwrap(), path);
    assert_eq!(written(), before);
}

#[test]
fn a_damaged_or_incomplete_folder_is_written_again() {
    let folder = tempfile::tempdir().unwrap();
    let path = SMALL.unpack_into(folder.path()).unwrap();
    fs::write(path.join("a.txt"), b"eno").unwrap(); // of the same length
    SMALL.unpack_into(folder.path()).unwrap();
    assert_eq!(fs::read(path.join("a.txt")).unwrap(), b"one");
    fs::remove_dir_all(path.join("folder")).unwrap();
    SMALL.unpack_into(folder.path()).unwrap();
    assert_eq!(fs::read(path.join("folder/b.txt")).unwrap(), b"two");
}

#[test]
fn programs_that_unpack_at_once_all_succeed() {
    let folder = tempfile::tempdir().unwrap();
    std::thread::scope(|scope| {
        let unpack = || SMALL.unpack_into(folder.path()).unwrap();
        let threads: Vec<_> = (0..8).map(|_| scope.spawn(unpack)).collect();
        for thread in threads {
            assert!(thread.join().unwrap().join("a.txt").is_file());
        }
    });
    let left: Vec<_> = fs::read_dir(folder.path().join("small-7"))
        .unwrap()
        .map(|entry| entry.unwrap().file_name())
        .collect();
    assert_eq!(left, ["small"]);
}

#[test]
fn a_cache_that_cannot_be_written_is_an_error_with_its_path() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("file");
    fs::write(&file, b"").unwrap();
    let error = SMALL.unpack_into(&file).unwrap_err().to_string();
    assert!(error.contains(&file.display().to_string()), "{error}");
}

#[test]
fn the_emoji_model_is_complete_and_small() {
    let names: Vec<_> = EMOJI.files.iter().map(|(name, _)| *name).collect();
    assert_eq!(names, ["config.yaml", "model.safetensors", "tokenizer/vocab.txt", "README.md"]);
    let bytes: usize = EMOJI.files.iter().map(|(_, bytes)| bytes.len()).sum();
    assert!(bytes <= 40_000_000, "{bytes} bytes");
    assert_eq!(ALL.map(|model| model.name), ["emoji"]);
}

#[test]
fn a_path_is_not_a_name() {
    for path in ["runs/emoji", "src", "emoji"] {
        // `emoji` is a folder of this crate, where its tests run.
        assert_eq!(ldm_models::resolve(path.into()).unwrap(), std::path::Path::new(path));
    }
}
