//! The safetensors format: a length, a JSON header, and bytes in order.

use std::collections::{BTreeMap, BTreeSet};
use std::io::Write;
use std::path::Path;

use safetensors::tensor::{Metadata, SafeTensorError};
use safetensors::{Dtype, SafeTensors};
use serde::Serialize;
use serde::ser::{SerializeMap, Serializer};
use tch::{Kind, Tensor};

use crate::contents::FileContents;
use crate::entry::{Storage, TensorEntry};
use crate::file_dtype::FileDtype;
use crate::memory;
use crate::streamed::Streamed;
use ldm_core::{Error, Result, files};

/// Size of the header's length, in bytes.
const LENGTH: usize = 8;

/// Dtypes by their names in a header.
const KINDS: [(Kind, Dtype, &str); 12] = [
    (Kind::Double, Dtype::F64, "F64"),
    (Kind::Int64, Dtype::I64, "I64"),
    (Kind::Float, Dtype::F32, "F32"),
    (Kind::Int, Dtype::I32, "I32"),
    (Kind::BFloat16, Dtype::BF16, "BF16"),
    (Kind::Half, Dtype::F16, "F16"),
    (Kind::Int16, Dtype::I16, "I16"),
    (Kind::Int8, Dtype::I8, "I8"),
    (Kind::Uint8, Dtype::U8, "U8"),
    (Kind::Bool, Dtype::BOOL, "BOOL"),
    (Kind::Float8e4m3fn, Dtype::F8_E4M3, "F8_E4M3"),
    (Kind::Float8e5m2, Dtype::F8_E5M2, "F8_E5M2"),
];

/// Reads the header. The crate `safetensors` checks that the tensors cover the file without gaps or overlaps, and
/// that header and file have the lengths they claim.
pub(crate) fn read(bytes: &[u8]) -> std::result::Result<FileContents, String> {
    let claimed = bytes.first_chunk::<LENGTH>().map_or(0, |length| u64::from_le_bytes(*length));
    let (length, most) = (bytes.len(), memory::header(bytes.len()));
    if (most as u64 + 1..length as u64).contains(&claimed) {
        return Err(format!("expected a safetensors header of at most {most} bytes, got {claimed}"));
    }
    let (header, found) = SafeTensors::read_metadata(bytes).map_err(|error| explain(bytes, &error))?;
    let start = LENGTH + header;
    let mut contents = FileContents { metadata: text(&found), ..FileContents::default() };
    for (name, info) in found.tensors() {
        let named = |why: String| format!("tensor `{}`: {why}", name.escape_debug());
        let kind = KINDS.iter().find(|(_, dtype, _)| *dtype == info.dtype);
        let unsigned = match info.dtype {
            Dtype::U16 => Some(FileDtype::U16),
            Dtype::U32 => Some(FileDtype::U32),
            Dtype::U64 => Some(FileDtype::U64),
            _ => None,
        };
        let dtype = kind.map(|(kind, ..)| FileDtype::Native(*kind)).or(unsigned);
        let dtype = dtype.ok_or_else(|| named(format!("unsupported dtype {:?}", info.dtype)))?;
        let (from, to) = info.data_offsets;
        let size = |each: &usize| i64::try_from(*each).map_err(|_| named("too large a shape".into()));
        let shape: Vec<i64> = info.shape.iter().map(size).collect::<std::result::Result<_, _>>()?;
        let mut strides = vec![1; shape.len()];
        for axis in (1..shape.len()).rev() {
            strides[axis - 1] = i64::saturating_mul(strides[axis], shape[axis]);
        }
        let storage = Storage::Plain(start + from..start + to);
        let entry = TensorEntry::new(storage, dtype, 0, shape, strides).map_err(named)?;
        contents.entries.insert(name, entry);
    }
    Ok(contents)
}

fn text(found: &Metadata) -> BTreeMap<String, String> {
    found.metadata().clone().unwrap_or_default().into_iter().collect()
}

fn explain(bytes: &[u8], error: &SafeTensorError) -> String {
    match error {
        SafeTensorError::InvalidHeaderLength | SafeTensorError::HeaderTooSmall => {
            format!("truncated: its safetensors header ends after the file's {} bytes", bytes.len())
        }
        SafeTensorError::MetadataIncompleteBuffer => format!(
            "truncated or overlong: its {} bytes are not as many as its safetensors header lists",
            bytes.len()
        ),
        other => format!("damaged safetensors header: {other}"),
    }
}

/// Writes a safetensors file atomically.
///
/// The bytes depend on names, values and metadata alone, not on the order of `tensors`. A tensor is copied to the CPU a
/// few megabytes at a time; none is in memory twice. Data are sorted by dtype, widest first, so that every tensor is
/// aligned, then by name.
///
/// # Errors
/// [`Error::Io`] when the file cannot be written; [`Error::Format`] when two tensors have the same name, when one has
/// the reserved name `__metadata__`, or a dtype that the format does not support.
pub fn save(
    path: impl AsRef<Path>,
    tensors: &[(String, Tensor)],
    metadata: &BTreeMap<String, String>,
) -> Result<()> {
    save_streamed(path, &Streamed::each(tensors), metadata)
}

/// [`save`] for tensors that are created one by one while writing.
///
/// # Errors
/// As [`save`], and those of creating a tensor.
pub fn save_streamed(
    path: impl AsRef<Path>,
    tensors: &[Streamed],
    metadata: &BTreeMap<String, String>,
) -> Result<()> {
    let path = path.as_ref();
    let refuse = |name: &str, why: &str| Error::format(path, format!("tensor `{name}`: {why}"));
    let mut sorted: Vec<&Streamed> = tensors.iter().collect();
    let width = |tensor: &Streamed| tensor.info.kind.elt_size_in_bytes();
    sorted.sort_by(|a, b| width(b).cmp(&width(a)).then_with(|| a.name.cmp(&b.name)));
    let mut taken = BTreeSet::from([METADATA]);
    let mut slots = Vec::with_capacity(sorted.len());
    let mut at = 0;
    for tensor in &sorted {
        let name = tensor.name.as_str();
        let dtype = KINDS.iter().find(|(kind, ..)| *kind == tensor.info.kind).map(|(_, _, name)| *name);
        let dtype = dtype.ok_or_else(|| refuse(name, "dtype not supported by safetensors"))?;
        if !taken.insert(name) {
            return Err(refuse(name, "duplicate or reserved name"));
        }
        let end = at + tensor.bytes();
        slots.push((name, Slot { dtype, shape: tensor.info.shape.clone(), data_offsets: [at, end] }));
        at = end;
    }
    let mut header = serde_json::to_vec(&Header { metadata, slots }).expect("text and numbers");
    header.resize(header.len().next_multiple_of(LENGTH), b' ');
    files::write_whole(path, |writer| {
        let mut put = |bytes: &[u8]| writer.write_all(bytes).map_err(Error::io(path));
        put(&(header.len() as u64).to_le_bytes())?;
        put(&header)?;
        let mut buffer = Vec::new();
        for tensor in &sorted {
            tensor.write(&mut buffer, &mut put)?;
        }
        Ok(())
    })
}

const METADATA: &str = "__metadata__";

/// The JSON of a header in a fixed order, which a JSON library's map does not guarantee.
struct Header<'a> {
    metadata: &'a BTreeMap<String, String>,
    slots: Vec<(&'a str, Slot)>,
}

#[derive(Serialize)]
struct Slot {
    dtype: &'static str,
    shape: Vec<i64>,
    data_offsets: [usize; 2],
}

impl Serialize for Header<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> std::result::Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(None)?;
        if !self.metadata.is_empty() {
            map.serialize_entry(METADATA, self.metadata)?;
        }
        for (name, slot) in &self.slots {
            map.serialize_entry(name, slot)?;
        }
        map.end()
    }
}
