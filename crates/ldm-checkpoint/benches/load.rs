//! Opening and loading a checkpoint of 64 MB in each format, onto `LDM_BENCH_DEVICE`.

#![allow(missing_docs)] // criterion's macros create undocumented functions

use std::collections::BTreeMap;
use std::hint::black_box;

use criterion::{Criterion, criterion_group, criterion_main};
use ldm_checkpoint::{Checkpoint, save, save_torch};
use ldm_core::device::{bench_device, device_name};
use ldm_core::nn::{skip_init, variable};
use tch::nn::{Init, VarStore};
use tch::{Device, Kind, Tensor};

/// 64 MB of f32 in tensors of a size common in U-Nets.
const TENSORS: i64 = 16;
const SIDE: i64 = 1024;

fn checkpoint_64mb(bench: &mut Criterion) {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let device = bench_device();
    let mut vs = VarStore::new(device);
    for index in 0..TENSORS {
        let _ = vs.root().var(&format!("w{index:02}"), &[SIDE, SIDE], Init::Const(0.));
    }
    let tensors: Vec<(String, Tensor)> = (0..TENSORS)
        .map(|index| (format!("w{index:02}"), Tensor::ones([SIDE, SIDE], (Kind::Float, Device::Cpu)) * index))
        .collect();
    let safetensors = folder.path().join("model.safetensors");
    save(&safetensors, &tensors, &BTreeMap::new()).expect("a writable folder");
    let zip = folder.path().join("model.ckpt");
    save_torch(&zip, &tensors, &BTreeMap::new()).expect("a writable folder");
    let name = |what: &str| format!("{what} 64 MB, {}", device_name(device));
    for (format, path) in [("safetensors", &safetensors), ("torch zip", &zip)] {
        bench.bench_function(&name(&format!("open {format}")), |bencher| {
            bencher.iter(|| Checkpoint::open(black_box(path)).expect("the file just written"));
        });
        bench.bench_function(&name(&format!("open and load {format}")), |bencher| {
            bencher.iter(|| {
                let checkpoint = Checkpoint::open(path).expect("the file just written");
                checkpoint.load_into(&mut vs).expect("the same names and shapes");
            });
        });
        for (dtype, kind) in [("f32", Kind::Float), ("f16", Kind::Half)] {
            bench.bench_function(&name(&format!("build and mmap {format} in {dtype}")), |bencher| {
                bencher.iter(|| {
                    let mut vs = empty_store(device, kind);
                    let checkpoint = Checkpoint::open(path).expect("the file just written");
                    checkpoint.load_mmap(&mut vs).expect("the same names and shapes");
                    vs
                });
            });
        }
    }
    bench.bench_function(&name("save safetensors"), |bencher| {
        bencher.iter(|| save(&safetensors, &tensors, &BTreeMap::new()).expect("a writable folder"));
    });
    bench.bench_function(&name("save torch zip"), |bencher| {
        bencher.iter(|| save_torch(&zip, &tensors, &BTreeMap::new()).expect("a writable folder"));
    });
}

/// The same variables, uninitialized.
fn empty_store(device: Device, kind: Kind) -> VarStore {
    let mut vs = VarStore::new(device);
    vs.set_kind(kind);
    skip_init(|| {
        for index in 0..TENSORS {
            let _ = variable(&vs.root(), &format!("w{index:02}"), &[SIDE, SIDE], Init::Const(0.));
        }
    });
    vs
}

criterion_group! {
    name = benches;
    config = Criterion::default().sample_size(10);
    targets = checkpoint_64mb
}
criterion_main!(benches);
