//! Files that another program changes while their weights are in use.

use std::collections::BTreeMap;
use std::fs::File;
use std::path::Path;
use std::process::Command;
use std::time::{Duration, SystemTime};

use ldm_checkpoint::{Checkpoint, FileWatch, save};
use tch::nn::{Init, VarStore};
use tch::{Device, Kind, Tensor};

/// Environment variable of the child: the file to truncate.
const FILE: &str = "LDM_TEST_TRUNCATED_FILE";

fn write(path: &Path, value: f64) {
    let tensor = Tensor::full([64, 64], value, (Kind::Float, Device::Cpu));
    save(path, &[("w".into(), tensor)], &BTreeMap::new()).unwrap();
}

fn load(path: &Path) -> (VarStore, FileWatch) {
    let mut vs = VarStore::new(Device::Cpu);
    let _ = vs.root().var("w", &[64, 64], Init::Const(9.));
    let checkpoint = Checkpoint::open(path).unwrap();
    checkpoint.load_mmap(&mut vs).unwrap();
    (vs, checkpoint.watch())
}

/// Overwrites the file in place, as `cp` does, a minute later by its time of modification.
fn overwrite(path: &Path, bytes: &[u8]) {
    std::fs::write(path, bytes).unwrap();
    let later = SystemTime::now() + Duration::from_mins(1);
    File::options().write(true).open(path).unwrap().set_modified(later).unwrap();
}

#[test]
fn a_write_in_place_is_an_error() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("model.safetensors");
    write(&path, 1.);
    let bytes = std::fs::read(&path).unwrap();
    let (vs, watch) = load(&path);
    watch.check().unwrap();
    overwrite(&path, &bytes);
    let error = watch.check().unwrap_err().to_string();
    let expected = "expected an unchanged file, got one that another program wrote to while it was in use";
    assert!(error.starts_with(&format!("{}: {expected}", path.display())), "{error}");
    drop(vs);
    // Longer, at the same time of modification.
    let (_vs, watch) = load(&path);
    let time = path.metadata().unwrap().modified().unwrap();
    let file = File::options().append(true).open(&path).unwrap();
    file.set_len(bytes.len() as u64 + 1).unwrap();
    file.set_modified(time).unwrap();
    assert!(watch.check().is_err());
}

#[test]
fn a_file_replaced_by_renaming_or_removed_is_none() {
    let folder = tempfile::tempdir().unwrap();
    let (path, other) = (folder.path().join("model.safetensors"), folder.path().join("other"));
    write(&path, 1.);
    let (vs, watch) = load(&path);
    write(&path, 2.); // next to it, then renamed
    watch.check().unwrap();
    std::fs::rename(&path, &other).unwrap();
    std::fs::remove_file(&other).unwrap();
    watch.check().unwrap();
    assert_eq!(vs.variables()["w"].mean(Kind::Float).double_value(&[]), 1.);
}

#[test]
fn loading_notices_a_change_before_it_ends() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("model.safetensors");
    write(&path, 1.);
    let checkpoint = Checkpoint::open(&path).unwrap();
    overwrite(&path, &std::fs::read(&path).unwrap());
    let mut vs = VarStore::new(Device::Cpu);
    let _ = vs.root().var("w", &[64, 64], Init::Const(9.));
    assert!(checkpoint.load_into(&mut vs).unwrap_err().to_string().contains("expected an unchanged file"));
}

#[cfg(unix)]
#[test]
fn a_truncated_file_ends_the_process_with_a_sentence() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("model.safetensors");
    write(&path, 1.);
    let child = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "changed_files::child", "--nocapture"])
        .env(FILE, &path)
        .output()
        .unwrap();
    let errors = String::from_utf8_lossy(&child.stderr);
    assert_eq!(child.status.code(), Some(1), "{errors}");
    assert!(errors.contains("error: a memory-mapped file was truncated by another program"), "{errors}");
}

#[test]
fn child() {
    let Ok(path) = std::env::var(FILE) else { return };
    ldm_libtorch::explain_bus_errors();
    let (vs, _watch) = load(Path::new(&path));
    File::options().write(true).open(&path).unwrap().set_len(0).unwrap();
    println!("{}", vs.variables()["w"].sum(Kind::Float).double_value(&[]));
    std::process::exit(77);
}
