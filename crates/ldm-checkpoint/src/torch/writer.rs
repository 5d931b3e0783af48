//! Writing the zip archive of `torch.save`: a pickle, and one uncompressed entry per tensor.

use std::collections::{BTreeMap, BTreeSet};
use std::io::{Seek, Write};
use std::path::Path;

use tch::{Kind, Tensor};
use zip::write::SimpleFileOptions;
use zip::{CompressionMethod, ZipWriter};

use crate::entry::TensorInfo;
use crate::pickle::writer::PickleWriter;
use crate::streamed::Streamed;
use ldm_core::{Error, Result, files};

/// PyTorch's alignment of storages, so that a memory-mapped one can be used in place.
const ALIGNMENT: u16 = 64;

/// The size from which a zip entry needs 64-bit records.
const LARGE: usize = u32::MAX as usize;

const STATE_DICT: &str = "state_dict";

/// Dtypes with the class of their storage, and the name of dtypes newer than these classes.
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

/// Writes a checkpoint that CompVis' code reads (`torch.load(path)["state_dict"]`), atomically.
///
/// It holds the tensors by name in `state_dict`, and each entry of `metadata` as text next to it. The bytes depend on
/// names, values and metadata alone, not on the order of `tensors`. A tensor is copied to the CPU a few megabytes at a
/// time; none is in memory twice. Each has its own storage, aligned to 64 bytes, even if they share one in memory.
///
/// # Errors
/// [`Error::Io`] when the file cannot be written; [`Error::Format`] when two tensors have the same name, when a tensor
/// has a dtype that a torch file does not support, or when the metadata have an entry `state_dict`.
pub fn save_torch(
    path: impl AsRef<Path>,
    tensors: &[(String, Tensor)],
    metadata: &BTreeMap<String, String>,
) -> Result<()> {
    save_torch_streamed(path, &Streamed::each(tensors), metadata)
}

/// [`save_torch`] for tensors that are created one by one while writing.
///
/// # Errors
/// As [`save_torch`], and those of creating a tensor.
pub fn save_torch_streamed(
    path: impl AsRef<Path>,
    tensors: &[Streamed],
    metadata: &BTreeMap<String, String>,
) -> Result<()> {
    let path = path.as_ref();
    if metadata.contains_key(STATE_DICT) {
        return Err(Error::format(path, "metadata `state_dict`: reserved name"));
    }
    let mut sorted: Vec<&Streamed> = tensors.iter().collect();
    sorted.sort_by_key(|tensor| tensor.name.as_str());
    let mut taken = BTreeSet::new();
    for tensor in &sorted {
        let name = tensor.name.as_str();
        let refuse = |why: &str| Error::format(path, format!("tensor `{name}`: {why}"));
        if !KINDS.iter().any(|(kind, ..)| *kind == tensor.info.kind) {
            return Err(refuse("dtype not supported by torch files"));
        }
        if !taken.insert(name) {
            return Err(refuse("duplicate name"));
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

/// Returns the names, each with the call that builds its tensor from the storage of its index.
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

/// `_rebuild_tensor_v2(storage, offset, size, stride, requires_grad, hooks)`, and `_v3` followed by the dtype. PyTorch
/// `torch/_utils.py`, `torch/_tensor.py` `_reduce_ex_internal`.
fn rebuild(pickle: &mut PickleWriter, index: usize, info: &TensorInfo) {
    let (shape, count) = (&info.shape, info.shape.iter().product());
    let found = KINDS.iter().find(|(kind, ..)| *kind == info.kind);
    let (_, storage, new_dtype) = *found.expect("dtypes were checked");
    let mut strides = vec![1; shape.len()];
    for axis in (1..shape.len()).rev() {
        strides[axis - 1] = strides[axis] * shape[axis].max(1);
    }
    let function = if new_dtype.is_some() { "_rebuild_tensor_v3" } else { "_rebuild_tensor_v2" };
    pickle.call("torch._utils", function, |pickle| {
        pickle.persistent(|pickle| {
            pickle.text("storage");
            // An untyped storage is counted in bytes, which is the same: these dtypes have one byte per value.
            pickle.global(if new_dtype.is_some() { "torch.storage" } else { "torch" }, storage);
            pickle.text(&index.to_string());
            pickle.text("cpu");
            pickle.int(count);
        });
        pickle.int(0);
        pickle.ints(shape);
        pickle.ints(&strides);
        pickle.push_false();
        pickle.call("collections", "OrderedDict", |_| {});
        if let Some(dtype) = new_dtype {
            pickle.global("torch", dtype);
        }
    });
}
