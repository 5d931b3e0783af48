//! Tensors in a file.

use std::io::Read;
use std::ops::Range;
use std::sync::Arc;

use ldm_libtorch::{MappedFile, MappedPages};
use tch::{Kind, Tensor};

/// A tensor's shape and dtype in the file.
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
    /// In the file, deflated, with the inflated length.
    Deflated(Range<usize>, usize),
}

impl Storage {
    pub(crate) fn len(&self) -> usize {
        match self {
            Self::Plain(range) => range.len(),
            Self::Deflated(_, len) => *len,
        }
    }
}

/// The most bytes of an expanded tensor, whose elements share bytes and could claim any size.
const EXPANDED: usize = 16 << 20;

/// A tensor in a file: a window into a storage, with bounds checked by [`TensorEntry::new`].
#[derive(Debug, Clone)]
pub(crate) struct TensorEntry {
    pub(crate) info: TensorInfo,
    /// In elements; `None` when the elements lie in order.
    strides: Option<Vec<i64>>,
    /// The bytes of the storage from the first element to the last.
    window: Range<usize>,
    storage: Storage,
    /// Index into the checkpoint's files.
    file: usize,
}

impl TensorEntry {
    /// Checks that every element lies in `storage`; `offset` and `strides` are in elements.
    pub(crate) fn new(
        storage: Storage,
        kind: Kind,
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
        let item = kind.elt_size_in_bytes() as i64;
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
        let window =
            start.zip(bytes(span)).and_then(|(start, length)| Some(start..start.checked_add(length)?));
        let window = window.filter(|window| window.end <= storage.len()).ok_or_else(outside)?;
        if !in_order && bytes(count).is_none_or(|total| total > window.len().max(EXPANDED)) {
            return Err(format!("expanded to {count} elements from {} bytes", window.len()));
        }
        let strides = if in_order { None } else { Some(strides) };
        Ok(Self { info: TensorInfo { shape, kind }, strides, window, storage, file: 0 })
    }

    /// The same entry with its file index shifted by `files`.
    pub(crate) fn offset_files(self, files: usize) -> Self {
        Self { file: self.file + files, ..self }
    }

    /// Returns its bytes in the file, deflated or not.
    pub(crate) fn place(&self) -> Range<usize> {
        match &self.storage {
            Storage::Plain(range) => range.start + self.window.start..range.start + self.window.end,
            Storage::Deflated(range, _) => range.clone(),
        }
    }

    /// Returns whether its storage is deflated.
    pub(crate) fn is_deflated(&self) -> bool {
        matches!(self.storage, Storage::Deflated(..))
    }

    /// Returns the tensor over the file's own pages, if its elements lie there in order and no other tensor has these
    /// pages.
    pub(crate) fn map_tensor(&self, pages: &[MappedPages]) -> Option<Tensor> {
        if self.is_deflated() || self.strides.is_some() {
            return None;
        }
        pages[self.file].tensor(self.place().start, &self.info.shape, self.info.kind)
    }

    /// Returns the tensor, copied from its file.
    pub(crate) fn read(&self, files: &[Arc<MappedFile>]) -> Result<Tensor, String> {
        let bytes = &files[self.file];
        match &self.storage {
            Storage::Plain(range) => Ok(self.view(&bytes[range.clone()])),
            Storage::Deflated(range, length) => Ok(self.view(&inflate(&bytes[range.clone()], *length, 0)?)),
        }
    }

    fn view(&self, storage: &[u8]) -> Tensor {
        let TensorInfo { shape, kind } = &self.info;
        let window = &storage[self.window.clone()];
        let Some(strides) = &self.strides else { return Tensor::from_data_size(window, shape, *kind) };
        let elements = (window.len() / kind.elt_size_in_bytes()) as i64;
        Tensor::from_data_size(window, &[elements], *kind).as_strided(shape, strides, None).contiguous()
    }
}

/// Inflates to exactly `length` bytes. Beyond `reserve`, memory grows with the output and not with the claimed length.
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
