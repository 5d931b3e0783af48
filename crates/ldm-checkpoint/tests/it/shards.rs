//! Sharded checkpoints.

use std::collections::BTreeMap;
use std::path::Path;

use ldm_checkpoint::{Checkpoint, Format, save, save_torch};
use tch::nn::{Init, VarStore};
use tch::{Device, Kind, Tensor};

use crate::{assert_same_bits, refusal};

fn tensor(value: i64) -> Tensor {
    Tensor::arange(6, (Kind::Float, Device::Cpu)).view([2, 3]) + value
}

fn index(folder: &Path, entries: &[(&str, &str)]) -> std::path::PathBuf {
    let pairs: Vec<String> = entries.iter().map(|(name, file)| format!(r#""{name}": "{file}""#)).collect();
    let path = folder.join("model.safetensors.index.json");
    let text = format!(r#"{{"metadata": {{"total_size": 72}}, "weight_map": {{{}}}}}"#, pairs.join(", "));
    std::fs::write(&path, text).unwrap();
    path
}

const LISTED: [(&str, &str); 3] = [("a.w", "one"), ("b.w", "two"), ("c.w", "one")];

/// The files `one` and `two` and their index.
fn sharded(folder: &Path, write: impl Fn(&Path, &[(String, Tensor)])) -> std::path::PathBuf {
    write(&folder.join("one"), &[("a.w".into(), tensor(1)), ("c.w".into(), tensor(3))]);
    write(&folder.join("two"), &[("b.w".into(), tensor(2))]);
    index(folder, &LISTED)
}

fn safetensors(path: &Path, tensors: &[(String, Tensor)]) {
    save(path, tensors, &BTreeMap::from([("format".into(), "pt".into())])).unwrap();
}

fn torch(path: &Path, tensors: &[(String, Tensor)]) {
    save_torch(path, tensors, &BTreeMap::new()).unwrap();
}

#[test]
fn an_index_opens_its_files_as_one() {
    for (write, format) in
        [(safetensors as fn(&Path, &[(String, Tensor)]), Format::Safetensors), (torch, Format::TorchZip)]
    {
        let folder = tempfile::tempdir().unwrap();
        let checkpoint = Checkpoint::open(sharded(folder.path(), write)).unwrap();
        assert_eq!(checkpoint.format(), format);
        assert_eq!(checkpoint.metadata()["total_size"], "72");
        assert_eq!(checkpoint.names().collect::<Vec<_>>(), ["a.w", "b.w", "c.w"]);
        for mmap in [false, true] {
            let mut vs = VarStore::new(Device::Cpu);
            for name in ["a", "b", "c"] {
                let _ = (vs.root() / name).var("w", &[2, 3], Init::Const(0.));
            }
            if mmap { checkpoint.load_mmap(&mut vs) } else { checkpoint.load_into(&mut vs) }.unwrap();
            for (value, name) in ["a.w", "b.w", "c.w"].into_iter().enumerate() {
                assert_same_bits(name, &vs.variables()[name], &tensor(value as i64 + 1));
            }
        }
    }
}

#[test]
fn missing_and_damaged_shards_are_named() {
    let folder = tempfile::tempdir().unwrap();
    let path = sharded(folder.path(), safetensors);
    let (one, two) = (folder.path().join("one"), folder.path().join("two"));

    let whole = std::fs::read(&two).unwrap();
    std::fs::write(&two, &whole[..whole.len() - 1]).unwrap();
    let error = Checkpoint::open(&path).unwrap_err().to_string();
    assert!(error.starts_with(&format!("{}: truncated", two.display())), "{error}");

    std::fs::write(&two, b"version https://git-lfs.github.com/spec/v1\n").unwrap();
    let error = Checkpoint::open(&path).unwrap_err().to_string();
    assert!(
        error.starts_with(&format!(
            "{}: expected safetensors or a file of torch.save, got a git-lfs",
            two.display()
        )),
        "{error}"
    );

    std::fs::remove_file(&two).unwrap();
    assert_eq!(refusal(&path), "missing shards: two");
    std::fs::remove_file(&one).unwrap();
    assert_eq!(refusal(&path), "missing shards: one, two");
}

#[test]
fn a_shard_must_match_its_index() {
    let folder = tempfile::tempdir().unwrap();
    sharded(folder.path(), safetensors);
    let error =
        |entries: &[(&str, &str)]| Checkpoint::open(index(folder.path(), entries)).unwrap_err().to_string();
    let one = folder.path().join("one");
    assert_eq!(
        error(&[LISTED.as_slice(), &[("d.w", "one")]].concat()),
        format!("{}: 1 tensors listed in the index but missing: d.w", one.display())
    );
    assert_eq!(error(&LISTED[..2]), format!("{}: 1 tensors not listed in the index: c.w", one.display()));
}

#[test]
fn an_index_may_only_name_files_next_to_it() {
    let folder = tempfile::tempdir().unwrap();
    for name in ["../one", "/etc/passwd", "deeper/one", "..", ""] {
        let path = index(folder.path(), &[("a", name)]);
        assert_eq!(refusal(&path), format!("shard `{name}`: expected a file next to the index"));
    }
    let path = folder.path().join("config.json");
    std::fs::write(&path, r#"{"sample_size": 64}"#).unwrap();
    let message = refusal(&path);
    assert!(message.starts_with("expected an index of shards, got other JSON: missing field"), "{message}");
}
