//! Where a tensor comes from: its place in the file, or the three places it is put together from.

use std::sync::Arc;

use ldm_libtorch::{Mapped, Pages};
use tch::Tensor;

use super::entry::{Entry, TensorInfo};

/// A tensor's place or places in the file, and the shape it is given.
#[derive(Debug, Clone)]
pub(crate) struct Source {
    /// What is given; the file's own may be of another shape.
    pub(crate) info: TensorInfo,
    /// One, or the three of a [`TensorChange::FusedQkv`](super::TensorChange::FusedQkv).
    parts: Vec<Entry>,
    heads: i64,
}

impl From<Entry> for Source {
    fn from(entry: Entry) -> Self {
        Self { info: entry.info.clone(), parts: vec![entry], heads: 1 }
    }
}

impl Source {
    /// Three parts of one shape and dtype as one tensor of `shape`, its rows head by head.
    pub(crate) fn join(parts: [&Self; 3], shape: &[i64], heads: i64) -> Self {
        let info = TensorInfo { shape: shape.to_vec(), kind: parts[0].info.kind };
        Self { info, parts: parts.iter().flat_map(|part| part.parts.clone()).collect(), heads }
    }

    /// The same with every place in the file so many further on.
    pub(crate) fn further(self, files: usize) -> Self {
        let parts = self.parts.into_iter().map(|part| part.further(files)).collect();
        Self { parts, ..self }
    }

    /// The tensor over its file's own pages, where that can be; see [`Entry::lend`].
    pub(crate) fn lend(&self, pages: &[Pages]) -> Option<Tensor> {
        let [whole] = self.parts.as_slice() else { return None };
        Some(whole.lend(pages)?.view(self.info.shape.as_slice()))
    }

    /// The tensor, copied out of its files' bytes.
    pub(crate) fn read(&self, files: &[Arc<Mapped>]) -> Result<Tensor, String> {
        let read = |entry: &Entry| entry.read(files);
        if let [whole] = self.parts.as_slice() {
            return Ok(read(whole)?.view(self.info.shape.as_slice()));
        }
        let thirds: Vec<Tensor> = self.parts.iter().map(read).collect::<Result<_, _>>()?;
        Ok(join(&thirds, &self.info.shape, self.heads))
    }
}

/// Queries, keys and values as one tensor: the rows of the first head of each, then of the second, …
fn join(thirds: &[Tensor], shape: &[i64], heads: i64) -> Tensor {
    let by_head: Vec<Tensor> = thirds.iter().map(|third| third.reshape([heads, 1, -1])).collect();
    Tensor::cat(&by_head, 1).view(shape)
}

/// The inverse of [`join`].
pub(crate) fn split(whole: &Tensor, shape: &[i64], heads: i64) -> Vec<Tensor> {
    let by_head = whole.reshape([heads, 3, -1]);
    (0..3).map(|third| by_head.select(1, third).contiguous().view(shape)).collect()
}
