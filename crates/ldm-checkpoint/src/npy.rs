//! NumPy's `.npy` arrays. Format: `numpy/lib/_format_impl.py`.

use std::path::Path;

use tch::{Kind, Tensor};

use crate::entry::TensorInfo;
use crate::file_dtype::FileDtype;
use ldm_core::{Error, Result};
use ldm_libtorch::map_file;

/// First bytes of a `.npy` file.
pub const NPY_MAGIC: &[u8] = b"\x93NUMPY";
/// The most bytes of a header; a plain array's has about a hundred.
pub(crate) const HEADER: usize = 64 << 10;
/// The most axes of an array, as in NumPy 1.
const AXES: usize = 32;

/// Reads the array of a `.npy` file, on the CPU. Unsigned integers of 16 and more bits become signed, of more bits.
///
/// # Errors
/// [`Error::Io`] when the file cannot be read; [`Error::Format`] when it is no `.npy`, damaged, or of a dtype that tensors
/// do not have (texts, objects, structures, big-endian numbers).
pub fn read_npy(path: impl AsRef<Path>) -> Result<Tensor> {
    let path = path.as_ref();
    let refuse = |why: String| Error::format(path, why);
    if std::fs::metadata(path).map_err(Error::io(path))?.len() == 0 {
        return Err(refuse("expected a .npy array, got an empty file".into()));
    }
    let bytes = map_file(path).map_err(Error::io(path))?;
    decode_npy(&bytes).map_err(refuse)
}

/// [`read_npy`] from bytes; the error is a message without the name of the file.
pub fn decode_npy(bytes: &[u8]) -> std::result::Result<Tensor, String> {
    let header = NpyHeader::read(bytes)?;
    header.check_length(bytes.len())?;
    header.tensor(bytes)
}

/// The shape of a `.npy` array, from its first bytes alone; the error is a message without the name of the file.
pub fn npy_shape(bytes: &[u8]) -> std::result::Result<Vec<i64>, String> {
    NpyHeader::read(bytes).map(|header| header.shape)
}

/// Shape and dtype of an array.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct NpyHeader {
    dtype: FileDtype,
    /// The first axis varies fastest.
    fortran: bool,
    shape: Vec<i64>,
    /// The place of the first element.
    start: usize,
    /// The bytes of all elements.
    bytes: usize,
}

impl NpyHeader {
    /// Reads the header of an array of which at least the first bytes are present.
    pub(crate) fn read(bytes: &[u8]) -> std::result::Result<Self, String> {
        let (HeaderDict { descr, fortran, shape }, start) = HeaderDict::read(bytes)?;
        let dtype = dtype(&descr)?;
        let sized = shape.iter().try_fold(1_i64, |all, size| all.checked_mul(*size));
        let sized = sized.and_then(|count| usize::try_from(count).ok()?.checked_mul(dtype.width()));
        let bytes = sized.ok_or_else(|| format!("expected the shape of an array, got {shape:?}"))?;
        Ok(Self { dtype, fortran, shape, start, bytes })
    }

    /// Checks that a file or entry of `length` bytes holds just this array.
    pub(crate) fn check_length(&self, length: usize) -> std::result::Result<(), String> {
        let expected = self.start.saturating_add(self.bytes);
        if expected == length {
            return Ok(());
        }
        Err(format!("expected {expected} bytes, by its shape {:?}, got {length}", self.shape))
    }

    pub(crate) fn info(&self) -> TensorInfo {
        TensorInfo { shape: self.shape.clone(), kind: self.dtype.kind() }
    }

    /// Returns the array of the checked `bytes`.
    pub(crate) fn tensor(&self, bytes: &[u8]) -> std::result::Result<Tensor, String> {
        let data = &bytes[self.start..self.start + self.bytes];
        let shape: Vec<i64> =
            if self.fortran { self.shape.iter().rev().copied().collect() } else { self.shape.clone() };
        let mut tensor = Tensor::from_data_size(data, &shape, self.dtype.raw());
        if self.fortran {
            let axes: Vec<i64> = (0..shape.len() as i64).rev().collect();
            tensor = tensor.permute(axes).contiguous();
        }
        self.dtype.widen(tensor)
    }
}

/// Returns the dtype of a `descr` such as `<f4`.
fn dtype(descr: &str) -> std::result::Result<FileDtype, String> {
    let unsupported = || {
        let kind = match descr.as_bytes().get(1) {
            _ if descr.starts_with('>') => "big-endian numbers",
            Some(b'U' | b'S') => "texts",
            Some(b'O') => "Python objects",
            _ => "another dtype",
        };
        format!("expected an array of numbers, got {kind} (`{}`)", descr.escape_debug())
    };
    let (order, name) = descr.split_at_checked(1).ok_or_else(unsupported)?;
    if !["<", "=", "|"].contains(&order) {
        return Err(unsupported());
    }
    let name = match name {
        "f8" => "float64",
        "f4" => "float32",
        "f2" => "float16",
        "c16" => "complex128",
        "c8" => "complex64",
        "i8" => "int64",
        "i4" => "int32",
        "i2" => "int16",
        "i1" => "int8",
        "u8" => "uint64",
        "u4" => "uint32",
        "u2" => "uint16",
        "u1" => "uint8",
        "b1" => "bool",
        _ => return Err(unsupported()),
    };
    FileDtype::by_name(name).ok_or_else(unsupported)
}

/// The Python dict of a header. Its values are a text, a boolean and a tuple of integers; structured dtypes, which nest,
/// are refused at their first bracket.
pub(crate) struct HeaderDict {
    pub(crate) descr: String,
    fortran: bool,
    pub(crate) shape: Vec<i64>,
}

impl HeaderDict {
    /// Reads the header of an array of which at least the first bytes are present; returns the place of the first element
    /// too.
    pub(crate) fn read(bytes: &[u8]) -> std::result::Result<(Self, usize), String> {
        let cut = || "truncated .npy header".to_owned();
        if !bytes.starts_with(NPY_MAGIC) {
            return Err("expected a .npy array, got another file".into());
        }
        let width = match bytes.get(6).ok_or_else(cut)? {
            1 => 2,
            2 | 3 => 4,
            version => return Err(format!("expected a .npy array of version 1 to 3, got {version}")),
        };
        let mut length = [0; 4];
        length[..width].copy_from_slice(bytes.get(8..8 + width).ok_or_else(cut)?);
        let length = u32::from_le_bytes(length) as usize;
        if length > HEADER {
            return Err(format!("expected a .npy header of at most {HEADER} bytes, got {length}"));
        }
        let start = 8 + width + length;
        let text = bytes.get(8 + width..start).ok_or_else(cut)?;
        let text = std::str::from_utf8(text).map_err(|_| "damaged .npy header".to_owned())?;
        Ok((Self::parse(text)?, start))
    }

    fn parse(text: &str) -> std::result::Result<Self, String> {
        let damaged = || "damaged .npy header".to_owned();
        let mut tokens = HeaderTokens(text);
        let (mut descr, mut fortran, mut shape) = (None, None, None);
        if tokens.next() != Some("{") {
            return Err(damaged());
        }
        loop {
            let key = match tokens.next().ok_or_else(damaged)? {
                "}" => break,
                "," => continue,
                key => quoted(key).ok_or_else(damaged)?,
            };
            if tokens.next() != Some(":") {
                return Err(damaged());
            }
            let value = tokens.next().ok_or_else(damaged)?;
            match key {
                "descr" if value == "[" => {
                    return Err("expected an array of numbers, got one of structures".into());
                }
                "descr" => descr = Some(quoted(value).ok_or_else(damaged)?.to_owned()),
                "fortran_order" => fortran = Some(value == "True"),
                "shape" if value == "(" => {
                    let mut sizes = Vec::new();
                    loop {
                        match tokens.next().ok_or_else(damaged)? {
                            ")" => break,
                            "," => {}
                            _ if sizes.len() == AXES => {
                                return Err(format!("expected at most {AXES} axes, got more"));
                            }
                            size => {
                                let size = size.parse().ok().filter(|size| *size >= 0);
                                sizes.push(size.ok_or_else(damaged)?);
                            }
                        }
                    }
                    shape = Some(sizes);
                }
                _ => return Err(damaged()),
            }
        }
        match (descr, fortran, shape) {
            (Some(descr), Some(fortran), Some(shape)) => Ok(Self { descr, fortran, shape }),
            _ => Err(damaged()),
        }
    }
}

/// The words of a header: brackets and separators, quoted texts, and what lies between.
struct HeaderTokens<'a>(&'a str);

impl<'a> HeaderTokens<'a> {
    fn next(&mut self) -> Option<&'a str> {
        let rest = self.0.trim_start();
        let first = rest.chars().next()?;
        let length = match first {
            '{' | '}' | '(' | ')' | '[' | ']' | ',' | ':' => 1,
            '\'' | '"' => rest[1..].find(first)? + 2,
            _ => rest.find(|c: char| c.is_whitespace() || "{}()[],:'\"".contains(c)).unwrap_or(rest.len()),
        };
        let (token, rest) = rest.split_at(length);
        self.0 = rest;
        Some(token)
    }
}

fn quoted(token: &str) -> Option<&str> {
    let inner = |quote| token.strip_prefix(quote)?.strip_suffix(quote);
    inner('\'').or_else(|| inner('"'))
}

/// Returns the header of a `.npy` array, padded so that the elements are aligned to 64 bytes; none for a dtype that NumPy
/// does not have.
pub fn npy_header(kind: Kind, shape: &[i64]) -> Option<Vec<u8>> {
    let descr = match kind {
        Kind::Double => "<f8",
        Kind::Float => "<f4",
        Kind::Half => "<f2",
        Kind::Int64 => "<i8",
        Kind::Int => "<i4",
        Kind::Int16 => "<i2",
        Kind::Int8 => "|i1",
        Kind::Uint8 => "|u1",
        Kind::Bool => "|b1",
        _ => return None,
    };
    // A comma after a single size makes a tuple of it.
    let sizes = shape.iter().map(ToString::to_string).collect::<Vec<_>>().join(",")
        + if shape.is_empty() { "" } else { "," };
    let mut text = format!("{{'descr': '{descr}', 'fortran_order': False, 'shape': ({sizes}), }}");
    let unpadded = NPY_MAGIC.len() + 4 + text.len() + 1;
    text.extend(std::iter::repeat_n(' ', unpadded.next_multiple_of(64) - unpadded));
    text.push('\n');
    let length = u16::try_from(text.len()).ok()?;
    Some([NPY_MAGIC, &[1, 0], &length.to_le_bytes(), text.as_bytes()].concat())
}
