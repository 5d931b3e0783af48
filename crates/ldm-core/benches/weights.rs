//! Opening and loading a checkpoint of 64 MB, of each format; `LDM_BENCH_DEVICE` says where to.

#![allow(missing_docs)] // criterion's macros make undocumented functions

use std::collections::BTreeMap;
use std::hint::black_box;
use std::io::Write;
use std::path::Path;

use criterion::{Criterion, criterion_group, criterion_main};
use ldm_core::device::{bench_device, device_name};
use ldm_core::weights::{Checkpoint, save};
use tch::nn::{Init, VarStore};
use tch::{Device, Kind, Tensor};

/// 64 MB of f32 in tensors of a U-Net's middle size.
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
    write_torch_zip(&zip);
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
    }
    bench.bench_function(&name("save safetensors"), |bencher| {
        bencher.iter(|| save(&safetensors, &tensors, &BTreeMap::new()).expect("a writable folder"));
    });
}

/// The file `torch.save` would write of the same tensors: a pickle and stored entries.
fn write_torch_zip(path: &Path) {
    let mut pickle = b"\x80\x02}(".to_vec();
    let text = |pickle: &mut Vec<u8>, text: &str| {
        pickle.push(b'X');
        pickle.extend((text.len() as u32).to_le_bytes());
        pickle.extend(text.as_bytes());
    };
    for index in 0..TENSORS {
        text(&mut pickle, &format!("w{index:02}"));
        pickle.extend(b"ctorch._utils\n_rebuild_tensor_v2\n((");
        text(&mut pickle, "storage");
        pickle.extend(b"ctorch\nFloatStorage\n");
        text(&mut pickle, &index.to_string());
        text(&mut pickle, "cpu");
        let int = |value: i64| [b"J".as_slice(), &(value as i32).to_le_bytes()].concat();
        pickle.extend(int(SIDE * SIDE));
        pickle.extend(b"tQK\x00");
        pickle.extend([int(SIDE), int(SIDE)].concat());
        pickle.extend(b"\x86");
        pickle.extend(int(SIDE));
        pickle.extend(b"K\x01\x86\x89ccollections\nOrderedDict\n)RtR");
    }
    pickle.extend(b"u.");
    let storage = |index: i64| (index as f32).to_le_bytes().repeat((SIDE * SIDE) as usize);
    let mut file = std::io::BufWriter::new(std::fs::File::create(path).expect("a writable folder"));
    let mut directory = Vec::new();
    let mut at = 0_u32;
    let mut add = |name: &str, data: &[u8]| {
        let sizes = [data.len() as u32; 2].map(u32::to_le_bytes).concat();
        let lengths = [name.len() as u16, 0].map(u16::to_le_bytes).concat();
        // Version, flags, method, time, date and checksum, which no reader here looks at.
        let local = [b"PK\x03\x04".as_slice(), &[0; 14], &sizes, &lengths, name.as_bytes()].concat();
        let entry = [
            b"PK\x01\x02".as_slice(),
            &[0; 16],
            &sizes,
            &lengths,
            &[0; 10],
            &at.to_le_bytes(),
            name.as_bytes(),
        ];
        directory.push(entry.concat());
        at += (local.len() + data.len()) as u32;
        file.write_all(&local).and_then(|()| file.write_all(data)).expect("room for 64 MB");
    };
    add("archive/data.pkl", &pickle);
    for index in 0..TENSORS {
        add(&format!("archive/data/{index}"), &storage(index));
    }
    let (count, directory) = (directory.len() as u16, directory.concat());
    let numbers = [(directory.len() as u32).to_le_bytes(), at.to_le_bytes()].concat();
    let end =
        [b"PK\x05\x06".as_slice(), &[0; 4], &[count; 2].map(u16::to_le_bytes).concat(), &numbers, &[0; 2]];
    file.write_all(&[directory, end.concat()].concat()).and_then(|()| file.flush()).expect("room for 64 MB");
}

criterion_group! {
    name = benches;
    config = Criterion::default().sample_size(10);
    targets = checkpoint_64mb
}
criterion_main!(benches);
