//! Tensors that are computed from those in the file: quantized, sparse, conjugated.

use std::sync::Arc;

use tch::{Kind, Tensor};

use crate::entry::{EXPANDED, TensorEntry, TensorInfo};
use crate::file_dtype::is_complex;
use crate::source_file::SourceFile;

/// The computation of a tensor from others of its file.
#[derive(Debug, Clone)]
pub(crate) enum Conversion {
    /// The lazy conjugate or negative of a tensor (`torch.Tensor.is_conj`, `is_neg`).
    Signed { values: TensorEntry, conjugate: bool, negative: bool },
    /// `scale · (q − zero point)`.
    Quantized { values: TensorEntry, scale: f64, zero_point: f64 },
    /// The same, with numbers of their own for each index of an axis.
    QuantizedByChannel { values: TensorEntry, scales: TensorEntry, zero_points: TensorEntry, axis: usize },
    /// Sparse, by the index of each value: indices `[D, N]`, values `[N, …]`.
    Coo { indices: TensorEntry, values: TensorEntry },
    /// Sparse by rows (CSR) or columns (CSC): the bounds of each row in `across` and `values`, `[N]` both.
    Compressed { bounds: TensorEntry, across: TensorEntry, values: TensorEntry, by_rows: bool },
}

impl Conversion {
    /// Returns the tensor of the values.
    pub(crate) fn values(&self) -> &TensorEntry {
        match self {
            Self::Signed { values, .. }
            | Self::Quantized { values, .. }
            | Self::QuantizedByChannel { values, .. }
            | Self::Coo { values, .. }
            | Self::Compressed { values, .. } => values,
        }
    }

    /// Returns the tensors in the file.
    pub(crate) fn parts(&mut self) -> Vec<&mut TensorEntry> {
        match self {
            Self::Signed { values, .. } | Self::Quantized { values, .. } => vec![values],
            Self::QuantizedByChannel { values, scales, zero_points, .. } => vec![values, scales, zero_points],
            Self::Coo { indices, values } => vec![indices, values],
            Self::Compressed { bounds, across, values, .. } => vec![bounds, across, values],
        }
    }

    /// Checks the shapes of the parts, and returns the tensor of `shape` computed from them.
    pub(crate) fn into_entry(self, shape: Vec<i64>) -> Result<TensorEntry, String> {
        let values = &self.values().info;
        let whole_numbers = |parts: &[&TensorEntry]| {
            parts.iter().all(|part| matches!(part.info.kind, Kind::Int | Kind::Int64))
        };
        let mut kind = values.kind;
        let fits = match &self {
            Self::Signed { conjugate, .. } => !conjugate || is_complex(kind),
            Self::Quantized { scale, zero_point, .. } => scale.is_finite() && zero_point.is_finite(),
            Self::QuantizedByChannel { scales, zero_points, axis, .. } => {
                let channels = shape.get(*axis).map(|size| vec![*size]);
                [scales, zero_points].iter().all(|part| Some(&part.info.shape) == channels.as_ref())
            }
            Self::Coo { indices, values } => {
                let (found, values) = (&indices.info.shape, &values.info.shape);
                let [axes, count] = **found else { return Err(damaged()) };
                let dense = usize::try_from(axes).ok().and_then(|axes| shape.get(axes..));
                whole_numbers(&[indices])
                    && values.first() == Some(&count)
                    && dense.is_some_and(|dense| dense == &values[1..])
            }
            Self::Compressed { bounds, across, values, by_rows } => {
                let [rows, columns] = *shape else {
                    return Err(
                        "expected a sparse matrix, got a batch of them; try saving `tensor.to_dense()`"
                            .into(),
                    );
                };
                let lines = if *by_rows { rows } else { columns };
                whole_numbers(&[bounds, across])
                    && lines.checked_add(1).is_some_and(|bound| bounds.info.shape == [bound])
                    && values.info.shape.len() == 1
                    && across.info.shape == values.info.shape
            }
        };
        if !fits {
            return Err(damaged());
        }
        match &self {
            Self::Quantized { .. } | Self::QuantizedByChannel { .. } => kind = Kind::Float,
            Self::Signed { .. } => {}
            Self::Coo { .. } | Self::Compressed { .. } => check_density(&shape, values)?,
        }
        Ok(TensorEntry::converted(TensorInfo { shape, kind }, self))
    }

    /// Computes the tensor of `info`.
    pub(crate) fn read(&self, info: &TensorInfo, files: &[Arc<SourceFile>]) -> Result<Tensor, String> {
        let values = self.values().read(files)?;
        Ok(match self {
            Self::Signed { conjugate, negative, .. } => {
                let values = if *conjugate { values.f_conj_physical().map_err(refused)? } else { values };
                if *negative { values.f_neg().map_err(refused)? } else { values }
            }
            Self::Quantized { scale, zero_point, .. } => {
                ((values.to_kind(Kind::Double) - *zero_point) * *scale).to_kind(Kind::Float)
            }
            Self::QuantizedByChannel { scales, zero_points, axis, .. } => {
                let mut broadcast = vec![1; info.shape.len()];
                broadcast[*axis] = -1;
                let by_channel = |part: &TensorEntry| -> Result<Tensor, String> {
                    Ok(part.read(files)?.to_kind(Kind::Double).view(broadcast.as_slice()))
                };
                let offset = values.to_kind(Kind::Double) - by_channel(zero_points)?;
                (offset * by_channel(scales)?).to_kind(Kind::Float)
            }
            Self::Coo { indices, .. } => {
                let indices = indices.read(files)?.to_kind(Kind::Int64);
                let axes = indices.size()[0] as usize;
                let mut flat = Tensor::zeros([values.size()[0]], (Kind::Int64, tch::Device::Cpu));
                for (axis, size) in info.shape[..axes].iter().enumerate() {
                    let index = indices.get(axis as i64);
                    check_indices(&index, *size)?;
                    flat = flat * *size + index;
                }
                scatter(&flat, &values, &info.shape, axes)?
            }
            Self::Compressed { bounds, across, by_rows, .. } => {
                let bounds = bounds.read(files)?.to_kind(Kind::Int64);
                let across = across.read(files)?.to_kind(Kind::Int64);
                let lengths = bounds.diff(1, 0, None::<Tensor>, None::<Tensor>);
                let count = values.size()[0];
                let least = if lengths.numel() == 0 { 0 } else { lengths.min().int64_value(&[]) };
                if bounds.int64_value(&[0]) != 0 || bounds.int64_value(&[-1]) != count || least < 0 {
                    return Err(damaged());
                }
                let line = Tensor::arange(lengths.size()[0], (Kind::Int64, tch::Device::Cpu))
                    .repeat_interleave_self_tensor(&lengths, 0, count);
                let (rows, columns) = if *by_rows { (line, across) } else { (across, line) };
                check_indices(&rows, info.shape[0])?;
                check_indices(&columns, info.shape[1])?;
                scatter(&(rows * info.shape[1] + columns), &values, &info.shape, 2)?
            }
        })
    }
}

/// Returns the first line of libtorch's error, for a dtype that an operation does not support.
fn refused(error: tch::TchError) -> String {
    error.to_string().lines().next().unwrap_or_default().to_owned()
}

fn damaged() -> String {
    "damaged quantized or sparse tensor".into()
}

/// Checks that the dense form of a sparse tensor is not out of proportion to the file.
fn check_density(shape: &[i64], values: &TensorInfo) -> Result<(), String> {
    let product = |sizes: &[i64]| sizes.iter().try_fold(1_i64, |all, size| all.checked_mul(*size));
    let bytes = |sizes| {
        let width = values.kind.elt_size_in_bytes() as i64;
        product(sizes).and_then(|count| usize::try_from(count.checked_mul(width)?).ok())
    };
    if shape.iter().any(|size| *size < 0) {
        return Err(damaged());
    }
    let most = bytes(&values.shape).unwrap_or(0).saturating_mul(4).max(EXPANDED);
    if bytes(shape).is_none_or(|dense| dense > most) {
        return Err(format!(
            "expected a sparse tensor of at most {most} bytes in its dense form, got shape {shape:?}; \
             try saving `tensor.to_dense()`"
        ));
    }
    Ok(())
}

fn check_indices(index: &Tensor, size: i64) -> Result<(), String> {
    if index.numel() > 0 && (index.min().int64_value(&[]) < 0 || index.max().int64_value(&[]) >= size) {
        return Err(damaged());
    }
    Ok(())
}

/// Adds `values` to zeros of `shape` at the flat indices of its first `axes` axes.
fn scatter(flat: &Tensor, values: &Tensor, shape: &[i64], axes: usize) -> Result<Tensor, String> {
    let cells: i64 = shape[..axes].iter().product();
    let mut size = vec![cells];
    size.extend(&shape[axes..]);
    let kind = values.kind();
    // libtorch has no sum of booleans.
    let sum = if kind == Kind::Bool { Kind::Uint8 } else { kind };
    let zeros = Tensor::zeros(&size, (sum, tch::Device::Cpu));
    let dense = zeros.f_index_add(0, flat, &values.to_kind(sum)).map_err(refused)?.view(shape);
    Ok(if kind == Kind::Bool { dense.ne(0) } else { dense })
}
