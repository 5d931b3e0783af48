//! Tensors in a file.

use std::io::Read;
use std::ops::Range;
use std::sync::Arc;

use ldm_libtorch::MappedPages;
use tch::{Kind, Tensor};

use crate::conversion::Conversion;
use crate::file_dtype::{FileDtype, can_map};
use crate::source_file::SourceFile;

/// A tensor's shape and dtype, as [`Checkpoint::tensor`](crate::Checkpoint::tensor) returns it.
///
/// Of dtypes and layouts that have no counterpart here this is the dtype and shape after conversion: i32 for u16, i64
/// for u32 and u64, f32 for quantized tensors, and the dense shape of sparse ones.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TensorInfo {
    /// Shape.
    pub shape: Vec<i64>,
    /// Dtype.
    pub kind: Kind,
}

/// The bytes of a storage.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Storage {
    /// In the file, uncompressed.
    Plain(Range<usize>),
    /// In the file, deflated.
    Deflated(Deflated),
}

/// A deflated storage.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Deflated {
    /// Its bytes in the file.
    pub(crate) place: Range<usize>,
    /// The inflated length; of a storage of tensors, the part up to the last byte that one of them uses.
    pub(crate) length: usize,
    /// True when several tensors use it.
    pub(crate) shared: bool,
}

impl Storage {
    pub(crate) fn len(&self) -> usize {
        match self {
            Self::Plain(range) => range.len(),
            Self::Deflated(deflated) => deflated.length,
        }
    }
}

/// The most bytes of a tensor whose elements share bytes in the file, and which could claim any size: an expanded or a
/// sparse one.
pub(crate) const EXPANDED: usize = 16 << 20;

/// A tensor in a file.
#[derive(Debug, Clone)]
pub(crate) struct TensorEntry {
    /// The tensor as read.
    pub(crate) info: TensorInfo,
    form: TensorForm,
}

#[derive(Debug, Clone)]
enum TensorForm {
    Dense(Window),
    Converted(Box<Conversion>),
}

/// A window into a storage, with bounds checked by [`TensorEntry::new`].
#[derive(Debug, Clone)]
pub(crate) struct Window {
    dtype: FileDtype,
    /// In elements; `None` when the elements lie in order.
    strides: Option<Vec<i64>>,
    /// The bytes of the storage from the first element to the last.
    pub(crate) range: Range<usize>,
    pub(crate) storage: Storage,
    /// Index into the checkpoint's files.
    file: usize,
}

impl TensorEntry {
    /// Checks that every element lies in `storage`; `offset` and `strides` are in elements.
    pub(crate) fn new(
        storage: Storage,
        dtype: FileDtype,
        offset: i64,
        shape: Vec<i64>,
        strides: Vec<i64>,
    ) -> Result<Self, String> {
        let outside = || format!("expected elements inside its storage of {} bytes", storage.len());
        if shape.len() != strides.len() || shape.iter().chain(&strides).any(|each| *each < 0) || offset < 0 {
            return Err(format!(
                "expected a valid tensor, got shape {shape:?}, strides {strides:?}, offset {offset}"
            ));
        }
        let item = dtype.width() as i64;
        // Also of an empty tensor the other sizes must multiply without overflow, or libtorch refuses its strides.
        let product =
            |least: i64| shape.iter().try_fold(1_i64, |all, each| all.checked_mul(*each.max(&least)));
        let count = product(1).and_then(|_| product(0)).ok_or_else(outside)?;
        let mut span = i64::from(count > 0);
        let mut next = 1;
        let mut in_order = true;
        for (size, stride) in shape.iter().zip(&strides).rev() {
            if count > 0 && *size > 1 {
                let reach = (size - 1).checked_mul(*stride).ok_or_else(outside)?;
                span = span.checked_add(reach).ok_or_else(outside)?;
                in_order &= *stride == next;
                next *= size; // at most `count`
            }
        }
        let bytes = |elements: i64| elements.checked_mul(item).and_then(|bytes| usize::try_from(bytes).ok());
        let start = if count == 0 { Some(0) } else { bytes(offset) };
        let range =
            start.zip(bytes(span)).and_then(|(start, length)| Some(start..start.checked_add(length)?));
        let range = range.filter(|range| range.end <= storage.len()).ok_or_else(outside)?;
        if !in_order && bytes(count).is_none_or(|total| total > range.len().max(EXPANDED)) {
            return Err(format!("expanded to {count} elements from {} bytes", range.len()));
        }
        let strides = if in_order { None } else { Some(strides) };
        let form = TensorForm::Dense(Window { dtype, strides, range, storage, file: 0 });
        Ok(Self { info: TensorInfo { shape, kind: dtype.kind() }, form })
    }

    /// Wraps a tensor that is computed from others.
    pub(crate) fn converted(info: TensorInfo, conversion: Conversion) -> Self {
        Self { info, form: TensorForm::Converted(Box::new(conversion)) }
    }

    /// The same entry with its file index shifted by `files`.
    pub(crate) fn offset_files(mut self, files: usize) -> Self {
        self.each_window(&mut |window| window.file += files);
        self
    }

    /// Visits the windows that the tensor is read from.
    pub(crate) fn each_window(&mut self, visit: &mut dyn FnMut(&mut Window)) {
        match &mut self.form {
            TensorForm::Dense(window) => visit(window),
            TensorForm::Converted(conversion) => {
                conversion.parts().into_iter().for_each(|part| part.each_window(visit));
            }
        }
    }

    /// Returns the window of its elements, or of the values it is computed from.
    fn window(&self) -> &Window {
        match &self.form {
            TensorForm::Dense(window) => window,
            TensorForm::Converted(conversion) => conversion.values().window(),
        }
    }

    /// Returns the index of its file, and its bytes there, deflated or not.
    pub(crate) fn place(&self) -> (usize, Range<usize>) {
        let window = self.window();
        let place = match &window.storage {
            Storage::Plain(range) => range.start + window.range.start..range.start + window.range.end,
            Storage::Deflated(deflated) => deflated.place.clone(),
        };
        (window.file, place)
    }

    /// Returns whether its elements are not simply bytes of the file: deflated, or converted.
    pub(crate) fn is_converted(&self) -> bool {
        matches!(self.form, TensorForm::Converted(_)) || matches!(self.window().storage, Storage::Deflated(_))
    }

    /// Returns its file and place as [`place`](Self::place), and its dtype, if its elements lie there in order as they
    /// are.
    pub(crate) fn plain(&self) -> Option<(usize, Range<usize>, Kind)> {
        let TensorForm::Dense(Window { dtype: FileDtype::Native(kind), strides: None, .. }) = &self.form
        else {
            return None;
        };
        let (file, place) = self.place();
        (!self.is_converted()).then_some((file, place, *kind))
    }

    /// Returns the tensor over the file's own pages, if its elements lie there in order and no other tensor has these
    /// pages.
    pub(crate) fn map_tensor(&self, pages: &[MappedPages]) -> Option<Tensor> {
        let (file, place, kind) = self.plain().filter(|(.., kind)| can_map(*kind))?;
        pages[file].tensor(place.start, &self.info.shape, kind)
    }

    /// Returns the tensor, copied from its file.
    pub(crate) fn read(&self, files: &[Arc<SourceFile>]) -> Result<Tensor, String> {
        match &self.form {
            TensorForm::Dense(window) => window.read(&self.info.shape, &files[window.file]),
            TensorForm::Converted(conversion) => conversion.read(&self.info, files),
        }
    }
}

impl Window {
    fn read(&self, shape: &[i64], file: &SourceFile) -> Result<Tensor, String> {
        match &self.storage {
            Storage::Plain(range) => self.view(shape, &file[range.clone()]),
            Storage::Deflated(deflated) => self.view(shape, &file.inflated(deflated)?),
        }
    }

    fn view(&self, shape: &[i64], storage: &[u8]) -> Result<Tensor, String> {
        let (bytes, kind) = (&storage[self.range.clone()], self.dtype.raw());
        let Some(strides) = &self.strides else {
            return self.dtype.widen(Tensor::from_data_size(bytes, shape, kind));
        };
        let elements = (bytes.len() / self.dtype.width()) as i64;
        let all = Tensor::from_data_size(bytes, &[elements], kind);
        self.dtype.widen(all.as_strided(shape, strides, None).contiguous())
    }
}

/// Inflates to exactly `length` bytes, of a stream that may be longer. Beyond `reserve`, memory grows with the output and
/// not with the claimed length.
pub(crate) fn inflate(deflated: &[u8], length: usize, reserve: usize) -> Result<Vec<u8>, String> {
    let mut inflated = Vec::with_capacity(length.min(reserve));
    let wanted = u64::try_from(length).map_err(|_| "too long for this machine".to_owned())?;
    flate2::read::DeflateDecoder::new(deflated)
        .take(wanted)
        .read_to_end(&mut inflated)
        .map_err(|error| format!("damaged compressed bytes: {error}"))?;
    if inflated.len() == length {
        Ok(inflated)
    } else {
        Err(format!("expected {length} inflated bytes, got {}", inflated.len()))
    }
}
