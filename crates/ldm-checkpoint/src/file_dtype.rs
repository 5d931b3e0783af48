//! Dtypes of elements in a file, including those that tch lacks.

use tch::{Kind, Tensor};

/// The dtype of a tensor's elements in its file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum FileDtype {
    /// A dtype of tch.
    Native(Kind),
    /// Unsigned 16-bit integers, read as i32.
    U16,
    /// Unsigned 32-bit integers, read as i64.
    U32,
    /// Unsigned 64-bit integers, read as i64.
    U64,
}

impl FileDtype {
    /// Returns the dtype of `torch.float32` and similar names.
    pub(crate) fn by_name(name: &str) -> Option<Self> {
        Some(Self::Native(match name {
            "float64" => Kind::Double,
            "float32" => Kind::Float,
            "float16" => Kind::Half,
            "bfloat16" => Kind::BFloat16,
            "float8_e4m3fn" => Kind::Float8e4m3fn,
            "float8_e4m3fnuz" => Kind::Float8e4m3fnuz,
            "float8_e5m2" => Kind::Float8e5m2,
            "float8_e5m2fnuz" => Kind::Float8e5m2fnuz,
            "complex128" => Kind::ComplexDouble,
            "complex64" => Kind::ComplexFloat,
            "complex32" => Kind::ComplexHalf,
            "int64" => Kind::Int64,
            "int32" => Kind::Int,
            "int16" => Kind::Int16,
            "int8" => Kind::Int8,
            "uint8" => Kind::Uint8,
            "bool" => Kind::Bool,
            "uint16" => return Some(Self::U16),
            "uint32" => return Some(Self::U32),
            "uint64" => return Some(Self::U64),
            _ => return None,
        }))
    }

    /// Returns the dtype of a storage's class, such as `FloatStorage`. Quantized storages have that of their integers.
    pub(crate) fn by_storage(class: &str) -> Option<Self> {
        Some(Self::Native(match class {
            "DoubleStorage" => Kind::Double,
            "FloatStorage" => Kind::Float,
            "HalfStorage" => Kind::Half,
            "BFloat16Storage" => Kind::BFloat16,
            "ComplexDoubleStorage" => Kind::ComplexDouble,
            "ComplexFloatStorage" => Kind::ComplexFloat,
            "LongStorage" => Kind::Int64,
            "IntStorage" | "QInt32Storage" => Kind::Int,
            "ShortStorage" => Kind::Int16,
            "CharStorage" | "QInt8Storage" => Kind::Int8,
            "ByteStorage" | "QUInt8Storage" | "UntypedStorage" => Kind::Uint8,
            "BoolStorage" => Kind::Bool,
            _ => return None,
        }))
    }

    /// Returns the bytes of an element in the file.
    pub(crate) fn width(self) -> usize {
        match self {
            Self::Native(kind) => kind.elt_size_in_bytes(),
            Self::U16 => 2,
            Self::U32 => 4,
            Self::U64 => 8,
        }
    }

    /// Returns the dtype of the tensor read.
    pub(crate) fn kind(self) -> Kind {
        match self {
            Self::Native(kind) => kind,
            Self::U16 => Kind::Int,
            Self::U32 | Self::U64 => Kind::Int64,
        }
    }

    /// Returns a dtype of tch of the same width, for the bytes.
    pub(crate) fn raw(self) -> Kind {
        match self {
            Self::Native(kind) => kind,
            Self::U16 => Kind::Int16,
            Self::U32 => Kind::Int,
            Self::U64 => Kind::Int64,
        }
    }

    /// Converts a tensor of [`FileDtype::raw`] to [`FileDtype::kind`].
    pub(crate) fn widen(self, raw: Tensor) -> Result<Tensor, String> {
        match self {
            Self::U16 => Ok(raw.to_kind(Kind::Int).bitwise_and(0xffff)),
            Self::U32 => Ok(raw.to_kind(Kind::Int64).bitwise_and(0xffff_ffff)),
            Self::U64 if raw.numel() > 0 && raw.min().int64_value(&[]) < 0 => {
                Err("expected unsigned integers below 2^63, got a larger one".into())
            }
            Self::Native(_) | Self::U64 => Ok(raw),
        }
    }
}

/// Returns whether tensors of this dtype can lie over a file's pages, which are those of weights.
pub(crate) fn can_map(kind: Kind) -> bool {
    let other = [
        Kind::ComplexHalf,
        Kind::ComplexFloat,
        Kind::ComplexDouble,
        Kind::QInt8,
        Kind::QUInt8,
        Kind::QInt32,
        Kind::Float8e4m3fnuz,
        Kind::Float8e5m2fnuz,
    ];
    !other.contains(&kind)
}

/// Returns whether the dtype is complex.
pub(crate) fn is_complex(kind: Kind) -> bool {
    matches!(kind, Kind::ComplexHalf | Kind::ComplexFloat | Kind::ComplexDouble)
}
