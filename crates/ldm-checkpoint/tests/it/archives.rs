//! Zip archives made by hand: compressed storages and arrays that claim more than they hold.

use std::io::Write;
use std::path::PathBuf;

use flate2::Compression;
use flate2::write::DeflateEncoder;
use ldm_checkpoint::{Checkpoint, Npz, read_npy, save_npz};
use tch::{Device, Kind, Tensor};

use crate::{assert_same_bits, golden};

/// An entry of an archive: its name, its length, and its bytes, deflated or not.
struct ZipEntry<'a> {
    name: &'a str,
    length: u32,
    bytes: Vec<u8>,
    deflated: bool,
}

impl<'a> ZipEntry<'a> {
    fn stored(name: &'a str, bytes: &[u8]) -> Self {
        Self { name, length: bytes.len() as u32, bytes: bytes.to_vec(), deflated: false }
    }

    /// Zeros that claim to be `length` bytes, of which `present` are.
    fn zeros(name: &'a str, length: u32, present: usize) -> Self {
        let mut encoder = DeflateEncoder::new(Vec::new(), Compression::fast());
        encoder.write_all(&vec![0; present]).unwrap();
        Self { name, length, bytes: encoder.finish().unwrap(), deflated: true }
    }
}

fn archive(entries: &[ZipEntry]) -> (tempfile::TempDir, PathBuf) {
    let (mut file, mut directory) = (Vec::new(), Vec::new());
    for ZipEntry { name, length, bytes, deflated } in entries {
        let method = if *deflated { 8_u16 } else { 0 };
        let fields = [
            [20, 0, method].map(u16::to_le_bytes).concat(),
            vec![0; 8], // time and checksum
            [bytes.len() as u32, *length].map(u32::to_le_bytes).concat(),
            [name.len() as u16, 0].map(u16::to_le_bytes).concat(),
        ]
        .concat();
        directory.extend([b"PK\x01\x02\x14\0".as_slice(), &fields, &[0; 10]].concat());
        directory.extend((file.len() as u32).to_le_bytes());
        directory.extend(name.as_bytes());
        file.extend([b"PK\x03\x04".as_slice(), &fields, name.as_bytes(), bytes].concat());
    }
    let (start, length) = (file.len() as u32, directory.len() as u32);
    file.extend(directory);
    file.extend(b"PK\x05\x06\0\0\0\0");
    file.extend([entries.len() as u16; 2].map(u16::to_le_bytes).concat());
    file.extend([length, start].map(u32::to_le_bytes).concat());
    file.extend([0, 0]);
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("archive");
    std::fs::write(&path, file).unwrap();
    (folder, path)
}

/// A state dict of tensors of one element at these offsets of one storage of floats.
fn pickle(offsets: &[u32]) -> Vec<u8> {
    let mut pickle = b"\x80\x02}(".to_vec();
    for (index, offset) in offsets.iter().enumerate() {
        pickle.extend([b"X\x02\0\0\0w", index.to_string().as_bytes()].concat());
        pickle.extend(b"ctorch._utils\n_rebuild_tensor_v2\n((X\x07\0\0\0storagectorch\nFloatStorage\n");
        pickle.extend(b"X\x01\0\0\x000X\x03\0\0\0cpuK\x04tQJ");
        pickle.extend(offset.to_le_bytes());
        pickle.extend(b"K\x01\x85K\x01\x85\x89}tR");
    }
    pickle.extend(b"u.");
    pickle
}

const CLAIMED: u32 = 1 << 30;

#[test]
fn a_deflated_storage_is_inflated_up_to_its_last_used_byte() {
    // Only the first megabyte exists: inflating more would fail.
    let storage = || ZipEntry::zeros("archive/data/0", CLAIMED, 1 << 20);
    let (_folder, path) = archive(&[ZipEntry::stored("archive/data.pkl", &pickle(&[0, 100])), storage()]);
    let checkpoint = Checkpoint::open(&path).unwrap();
    for name in ["w0", "w1", "w0"] {
        assert_eq!(checkpoint.tensor(name).unwrap(), Tensor::from_slice(&[0_f32]));
    }
    let (_folder, path) = archive(&[ZipEntry::stored("archive/data.pkl", &pickle(&[0, 1 << 19])), storage()]);
    let error = Checkpoint::open(&path).unwrap().tensor("w1").unwrap_err().to_string();
    assert!(error.contains("inflated bytes") || error.contains("damaged compressed bytes"), "{error}");
}

#[test]
fn deflated_storages_that_inflate_to_much_more_than_the_file_are_refused() {
    let far = CLAIMED / 4 - 1;
    let (_folder, path) = archive(&[
        ZipEntry::stored("archive/data.pkl", &pickle(&[0, far])),
        ZipEntry::zeros("archive/data/0", CLAIMED, 1 << 20),
    ]);
    let error = Checkpoint::open(&path).unwrap_err().to_string();
    assert!(error.contains("expected compressed tensors of at most "), "{error}");
    assert!(error.ends_with("got 1073741824; try saving them uncompressed"), "{error}");
}

#[test]
fn arrays_of_numpy() {
    let expected = Checkpoint::open(golden("arrays.safetensors")).unwrap();
    for file in ["arrays.npz", "arrays_compressed.npz"] {
        let npz = Npz::open(golden(file)).unwrap();
        for name in expected.names() {
            let array = npz.array(name).unwrap();
            assert_same_bits(name, &array, &expected.tensor(name).unwrap());
            assert_eq!(Some(npz.info(name).unwrap()), expected.info(name), "{name}");
        }
        for (name, message) in [
            ("big_endian", "`big_endian`: expected an array of numbers, got big-endian numbers (`>f4`)"),
            ("texts", "`texts`: expected an array of numbers, got texts (`<U2`)"),
            ("objects", "`objects`: expected an array of numbers, got Python objects (`|O`)"),
            ("structures", "`structures`: expected an array of numbers, got one of structures"),
            ("too_large", "`too_large`: expected unsigned integers below 2^63, got a larger one"),
            ("absent", "`absent`: expected an array of this name, got big_endian, bool, empty, "),
        ] {
            let error = npz.array(name).unwrap_err().to_string();
            assert!(error.contains(&format!("{file}: {message}")), "{error}");
        }
    }
    let array = read_npy(golden("array.npy")).unwrap();
    assert_same_bits("array", &array, &expected.tensor("f4_fortran").unwrap());
}

#[test]
fn arrays_are_written_as_read() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("own.npz");
    let expected = Checkpoint::open(golden("arrays.safetensors")).unwrap();
    let arrays: Vec<_> =
        expected.names().map(|name| (name.to_owned(), expected.tensor(name).unwrap())).collect();
    save_npz(&path, &arrays).unwrap();
    let npz = Npz::open(&path).unwrap();
    assert!(npz.names().eq(expected.names()));
    for (name, tensor) in arrays {
        assert_same_bits(&name, &npz.array(&name).unwrap(), &tensor);
    }
    let bf16 = Tensor::ones([1], (Kind::BFloat16, Device::Cpu));
    let error = save_npz(&path, &[("w".into(), bf16)]).unwrap_err().to_string();
    assert!(error.ends_with("`w`: BFloat16 is no dtype of NumPy"), "{error}");
}

/// A `.npy` of this header, and these bytes.
fn npy(header: &str, data: &[u8]) -> Vec<u8> {
    let length = header.len() as u32;
    [b"\x93NUMPY\x02\0".as_slice(), &length.to_le_bytes(), header.as_bytes(), data].concat()
}

#[track_caller]
fn refused(array: &[u8], message: &str) {
    let (_folder, path) = archive(&[ZipEntry::stored("mu.npy", array)]);
    let error = Npz::open(&path).unwrap().array("mu").unwrap_err().to_string();
    assert!(error.ends_with(&format!("`mu`: {message}")), "{error}");
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), array).unwrap();
    let error = read_npy(file.path()).unwrap_err().to_string();
    assert!(error.ends_with(message), "{error}");
}

#[test]
fn arrays_that_demand_too_much() {
    let header = |descr: &str, shape: &str| {
        format!("{{'descr': {descr}, 'fortran_order': False, 'shape': ({shape}), }}")
    };
    let sized = |shape: &str| npy(&header("'<f8'", shape), &[0; 16]);
    let (_folder, path) = archive(&[ZipEntry::stored("mu.npy", &sized("2,"))]);
    assert_eq!(Npz::open(&path).unwrap().array("mu").unwrap().size(), [2]);
    let short = |shape: &str, expected: usize| {
        let array = sized(&format!("{shape},"));
        let (expected, got) = (array.len() - 16 + expected, array.len());
        refused(&array, &format!("expected {expected} bytes, by its shape [{shape}], got {got}"));
    };
    short("100000000000", 800_000_000_000);
    short("3", 24);
    short("1", 8);
    refused(&sized("4611686018427387904, 4"), "expected the shape of an array, got [4611686018427387904, 4]");
    refused(&sized("-1,"), "damaged .npy header");
    refused(&sized("99999999999999999999,"), "damaged .npy header");
    refused(&sized(&"1,".repeat(33)), "expected at most 32 axes, got more");
    // Nesting that a backtracking parser takes hours for.
    let nested = format!("{}{}", "[".repeat(3000), "]".repeat(3000));
    refused(&npy(&header(&nested, "2,"), &[]), "expected an array of numbers, got one of structures");
    refused(&npy(&format!("{{'descr': {}", "(".repeat(60000)), &[]), "damaged .npy header");
    refused(&npy(&" ".repeat(65537), &[]), "expected a .npy header of at most 65536 bytes, got 65537");
    refused(&npy("{'descr': '<f8'", &[]), "damaged .npy header");
    refused(b"\x93NUMPY\x02\0\xff", "truncated .npy header");
    refused(b"\x93NUMPY\x09\0\0\0", "expected a .npy array of version 1 to 3, got 9");
    refused(b"no array", "expected a .npy array, got another file");
    // Compressed to a thousandth.
    let zeros = 1 << 28;
    let head = npy(&header("'|u1'", &format!("{zeros},")), &[]);
    let mut encoder = DeflateEncoder::new(Vec::new(), Compression::fast());
    encoder.write_all(&[head.as_slice(), &vec![0; 1 << 20]].concat()).unwrap();
    let bytes = encoder.finish().unwrap();
    let length = (head.len() + zeros) as u32;
    let (_folder, path) = archive(&[ZipEntry { name: "mu.npy", length, bytes, deflated: true }]);
    let error = Npz::open(&path).unwrap().array("mu").unwrap_err().to_string();
    assert!(error.contains("`mu`: expected at most ") && error.contains("compressed ones, got "), "{error}");
}
