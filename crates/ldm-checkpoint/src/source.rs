//! The source of a tensor: one entry of a file, or three that are fused.

use std::sync::Arc;

use ldm_libtorch::MappedPages;
use tch::Tensor;

use crate::entry::{TensorEntry, TensorInfo};
use crate::source_file::SourceFile;

/// The entries of a tensor, and its shape.
#[derive(Debug, Clone)]
pub(crate) struct Source {
    /// The resulting tensor; a single entry may have another shape in the file.
    pub(crate) info: TensorInfo,
    /// One, or the three of a [`TensorChange::FusedQkv`](crate::TensorChange::FusedQkv).
    parts: Vec<TensorEntry>,
    heads: i64,
}

impl From<TensorEntry> for Source {
    fn from(entry: TensorEntry) -> Self {
        Self { info: entry.info.clone(), parts: vec![entry], heads: 1 }
    }
}

impl Source {
    /// Fuses three parts of equal shape and dtype into one tensor of `shape`, its rows head by head.
    pub(crate) fn join(parts: [&Self; 3], shape: &[i64], heads: i64) -> Self {
        let info = TensorInfo { shape: shape.to_vec(), kind: parts[0].info.kind };
        Self { info, parts: parts.iter().flat_map(|part| part.parts.clone()).collect(), heads }
    }

    /// The same source with file indices shifted by `files`.
    pub(crate) fn offset_files(self, files: usize) -> Self {
        let parts = self.parts.into_iter().map(|part| part.offset_files(files)).collect();
        Self { parts, ..self }
    }

    /// Returns the index of its first part's file and its place there, for reading in the file's order.
    pub(crate) fn place(&self) -> (usize, usize) {
        self.parts.first().map_or((0, 0), |part| {
            let (file, place) = part.place();
            (file, place.start)
        })
    }

    /// Returns the tensor over its file's own pages, if possible; see [`TensorEntry::map_tensor`].
    pub(crate) fn map_tensor(&self, pages: &[MappedPages]) -> Option<Tensor> {
        let [whole] = self.parts.as_slice() else { return None };
        Some(whole.map_tensor(pages)?.view(self.info.shape.as_slice()))
    }

    /// Returns the bytes of its elements, if they lie in its file in order as they are.
    pub(crate) fn bytes<'a>(&self, files: &'a [Arc<SourceFile>]) -> Option<&'a [u8]> {
        let [whole] = self.parts.as_slice() else { return None };
        let (file, place, _) = whole.plain()?;
        files[file].get(place)
    }

    /// Returns the tensor, copied from its files.
    pub(crate) fn read(&self, files: &[Arc<SourceFile>]) -> Result<Tensor, String> {
        let read = |entry: &TensorEntry| entry.read(files);
        if let [whole] = self.parts.as_slice() {
            return Ok(read(whole)?.view(self.info.shape.as_slice()));
        }
        let thirds: Vec<Tensor> = self.parts.iter().map(read).collect::<Result<_, _>>()?;
        Ok(join(&thirds, &self.info.shape, self.heads))
    }
}

/// Fuses queries, keys and values: the rows of the first head of each, then of the second, …
fn join(thirds: &[Tensor], shape: &[i64], heads: i64) -> Tensor {
    let by_head: Vec<Tensor> = thirds.iter().map(|third| third.reshape([heads, 1, -1])).collect();
    Tensor::cat(&by_head, 1).view(shape)
}

/// Returns the inverse of [`join`].
pub(crate) fn split(whole: &Tensor, shape: &[i64], heads: i64) -> Vec<Tensor> {
    let by_head = whole.reshape([heads, 3, -1]);
    (0..3).map(|third| by_head.select(1, third).contiguous().view(shape)).collect()
}
