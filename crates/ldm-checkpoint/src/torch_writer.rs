//! What `torch.save` writes: a zip of a pickle and one stored entry a tensor.

use std::collections::{BTreeMap, BTreeSet};
use std::io::{Seek, Write};
use std::path::Path;

use tch::{Kind, Tensor};
use zip::write::SimpleFileOptions;
use zip::{CompressionMethod, ZipWriter};

use super::entry::TensorInfo;
use super::pickle_writer::PickleWriter;
use super::streamed::Streamed;
use ldm_core::{Error, Result, files};

/// Where PyTorch aligns storages, so that a mapped one can be computed with as it lies.
const ALIGNMENT: u16 = 64;

/// A zip entry of this many bytes or more needs the 64-bit records.
const LARGE: usize = u32::MAX as usize;

const STATE_DICT: &str = "state_dict";

/// How a dtype is written: the class of its storage, and for dtypes younger than those classes its own name.
const KINDS: [(Kind, &str, Option<&str>); 12] = [
    (Kind::Double, "DoubleStorage", None),
    (Kind::Float, "FloatStorage", None),
    (Kind::Half, "HalfStorage", None),
    (Kind::BFloat16, "BFloat16Storage", None),
    (Kind::Float8e4m3fn, "UntypedStorage", Some("float8_e4m3fn")),
    (Kind::Float8e5m2, "UntypedStorage", Some("float8_e5m2")),
    (Kind::Int64, "LongStorage", None),
    (Kind::Int, "IntStorage", None),
    (Kind::Int16, "ShortStorage", None),
    (Kind::Int8, "CharStorage", None),
    (Kind::Uint8, "ByteStorage", None),
    (Kind::Bool, "BoolStorage", None),
];

/// Writes a checkpoint as CompVis' code reads it (`torch.load(path)["state_dict"]`), whole or not at all.
///
/// It holds `state_dict`, the tensors under their names, and each of `metadata` as text beside it. The bytes depend on
/// names, values and metadata alone, not on the order given. A tensor is copied to the CPU a few megabytes at a time;
/// none is kept twice. Each has a storage of its own, aligned to 64 bytes, also those that share one in memory.
///
/// # Errors
/// [`Error::Io`] when the file cannot be written; [`Error::Format`] when two tensors have one name, when a tensor has a
/// dtype PyTorch has no weights of, or when the metadata have an entry `state_dict`.
pub fn save_torch(
    path: impl AsRef<Path>,
    tensors: &[(String, Tensor)],
    metadata: &BTreeMap<String, String>,
) -> Result<()> {
    save_torch_streamed(path, &Streamed::each(tensors), metadata)
}

/// [`save_torch`] of tensors that are made when it is their turn.
///
/// # Errors
/// As [`save_torch`], and those of making a tensor.
pub fn save_torch_streamed(
    path: impl AsRef<Path>,
    tensors: &[Streamed],
    metadata: &BTreeMap<String, String>,
) -> Result<()> {
    let path = path.as_ref();
    if metadata.contains_key(STATE_DICT) {
        return Err(Error::format(path, "metadata `state_dict`: the name of what holds the tensors"));
    }
    let mut sorted: Vec<&Streamed> = tensors.iter().collect();
    sorted.sort_by_key(|tensor| tensor.name.as_str());
    let mut taken = BTreeSet::new();
    for tensor in &sorted {
        let name = tensor.name.as_str();
        let refuse = |why: &str| Error::format(path, format!("tensor `{name}`: {why}"));
        if !KINDS.iter().any(|(kind, ..)| *kind == tensor.info.kind) {
            return Err(refuse("no torch file holds its dtype"));
        }
        if !taken.insert(name) {
            return Err(refuse("its name is taken"));
        }
    }
    files::write_whole(path, |file| write(file, path, &sorted, metadata))
}

fn write(
    file: &mut (impl Write + Seek),
    path: &Path,
    tensors: &[&Streamed],
    metadata: &BTreeMap<String, String>,
) -> Result<()> {
    let zip_error = |error: zip::result::ZipError| Error::io(path)(error.into());
    let mut zip = ZipWriter::new(file);
    let stored =
        SimpleFileOptions::default().compression_method(CompressionMethod::Stored).with_alignment(ALIGNMENT);
    let start = |zip: &mut ZipWriter<_>, name: &str, length: usize| {
        zip.start_file(format!("archive/{name}"), stored.large_file(length >= LARGE)).map_err(zip_error)
    };
    let pickle = pickle(tensors, metadata);
    for (name, bytes) in [
        ("data.pkl", pickle.as_slice()),
        (".format_version", b"1"),
        (".storage_alignment", b"64"),
        ("byteorder", b"little"),
    ] {
        start(&mut zip, name, bytes.len())?;
        zip.write_all(bytes).map_err(Error::io(path))?;
    }
    let mut buffer = Vec::new();
    for (index, tensor) in tensors.iter().enumerate() {
        start(&mut zip, &format!("data/{index}"), tensor.bytes())?;
        tensor.write(&mut buffer, &mut |bytes| zip.write_all(bytes).map_err(Error::io(path)))?;
    }
    start(&mut zip, "version", 2)?;
    zip.write_all(b"3\n").map_err(Error::io(path))?;
    zip.finish().map_err(zip_error)?;
    Ok(())
}

/// The names, and for each the call that makes its tensor of the storage of its number.
fn pickle(tensors: &[&Streamed], metadata: &BTreeMap<String, String>) -> Vec<u8> {
    let mut pickle = PickleWriter::new();
    pickle.dict(|pickle| {
        pickle.text(STATE_DICT);
        pickle.ordered_dict(|pickle| {
            for (index, tensor) in tensors.iter().enumerate() {
                pickle.text(&tensor.name);
                rebuild(pickle, index, &tensor.info);
            }
        });
        for (key, value) in metadata {
            pickle.text(key);
            pickle.text(value);
        }
    });
    pickle.finish()
}

/// `_rebuild_tensor_v2(storage, offset, size, stride, requires_grad, hooks)`, and `_v3` with the dtype behind. PyTorch
/// `torch/_utils.py`, `torch/_tensor.py` `_reduce_ex_internal`.
fn rebuild(pickle: &mut PickleWriter, index: usize, info: &TensorInfo) {
    let (shape, count) = (&info.shape, info.shape.iter().product());
    let found = KINDS.iter().find(|(kind, ..)| *kind == info.kind);
    let (_, storage, young) = *found.expect("dtypes were checked");
    let mut strides = vec![1; shape.len()];
    for axis in (1..shape.len()).rev() {
        strides[axis - 1] = strides[axis] * shape[axis].max(1);
    }
    let function = if young.is_some() { "_rebuild_tensor_v3" } else { "_rebuild_tensor_v2" };
    pickle.call("torch._utils", function, |pickle| {
        pickle.persistent(|pickle| {
            pickle.text("storage");
            // An untyped storage is counted in bytes, which is the same: these dtypes have one a value.
            pickle.global(if young.is_some() { "torch.storage" } else { "torch" }, storage);
            pickle.text(&index.to_string());
            pickle.text("cpu");
            pickle.int(count);
        });
        pickle.int(0);
        pickle.ints(shape);
        pickle.ints(&strides);
        pickle.no();
        pickle.call("collections", "OrderedDict", |_| {});
        if let Some(dtype) = young {
            pickle.global("torch", dtype);
        }
    });
}
