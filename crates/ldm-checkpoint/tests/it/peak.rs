//! Peak memory of loading: the model in its own dtype, never a second copy in the file's.

use std::collections::BTreeMap;
use std::process::Command;

use ldm_checkpoint::{Checkpoint, save};
use ldm_core::nn::{skip_init, variable};
use tch::nn::{Init, VarStore};
use tch::{Device, Kind, Tensor};

/// 60 tensors of 16 MB: 960 MB of f32.
const TENSORS: i64 = 60;
const SHAPE: [i64; 4] = [640, 728, 3, 3];
const MB: u64 = 1 << 20;

/// Environment variable of the child: the file to load.
const FILE: &str = "LDM_TEST_PEAK_FILE";
/// Environment variable of the child: the dtype to load it into.
const DTYPE: &str = "LDM_TEST_PEAK_DTYPE";

/// The peak is a property of the process, so each case runs in its own.
#[test]
fn loading_takes_at_most_a_quarter_more_than_the_model() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("model.safetensors");
    // One tensor under many names, which takes memory once.
    let one = Tensor::arange(SHAPE.iter().product::<i64>(), (Kind::Float, Device::Cpu)).view(SHAPE);
    let tensors: Vec<_> = (0..TENSORS).map(|index| (format!("w{index}"), one.shallow_clone())).collect();
    save(&path, &tensors, &BTreeMap::new()).unwrap();
    for dtype in ["f16", "f32", "channels_last"] {
        let child = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "peak::child", "--nocapture"])
            .env(FILE, &path)
            .env(DTYPE, dtype)
            .output()
            .unwrap();
        let output = String::from_utf8_lossy(&child.stdout) + String::from_utf8_lossy(&child.stderr);
        assert!(child.status.success(), "{dtype}: {output}");
        assert!(output.contains("1 passed"), "{dtype}: {output}");
    }
}

#[test]
fn child() {
    let (Ok(path), Ok(dtype)) = (std::env::var(FILE), std::env::var(DTYPE)) else { return };
    let kind = if dtype == "f16" { Kind::Half } else { Kind::Float };
    let mut vs = VarStore::new(Device::Cpu);
    vs.set_kind(kind);
    let before = ldm_libtorch::peak_resident_bytes();
    assert!(before > 0, "a system that reports the peak");
    skip_init(|| {
        for index in 0..TENSORS {
            let _ = variable(&vs.root(), &format!("w{index}"), &SHAPE, Init::Randn { mean: 0., stdev: 1. });
        }
    });
    Checkpoint::open(path).unwrap().load_mmap(&mut vs).unwrap();
    if dtype == "channels_last" {
        ldm_libtorch::channels_last(&vs);
    }
    // MappedFile pages are in memory once they are read.
    let sums: Vec<f64> =
        vs.variables().values().map(|each| each.sum(Kind::Double).double_value(&[])).collect();
    assert!(sums.windows(2).all(|two| two[0] == two[1]));
    let growth = ldm_libtorch::peak_resident_bytes() - before;
    let model = TENSORS as u64 * SHAPE.iter().product::<i64>() as u64 * kind.elt_size_in_bytes() as u64;
    assert!(growth >= model, "the whole model is in memory: {} of {} MB", growth / MB, model / MB);
    let allowed = model + model / 4 + 300 * MB;
    assert!(growth <= allowed, "{dtype}: {} MB, {} allowed", growth / MB, allowed / MB);
}
