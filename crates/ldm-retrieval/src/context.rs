//! The context of a retrieval-augmented model.

use ldm_core::{Error, Result};
use tch::Tensor;

use crate::search::unit;
use crate::{EmbeddingIndex, Neighbor, Search};

impl EmbeddingIndex {
    /// The embeddings of images, one after the other.
    ///
    /// # Shapes
    /// - returns `[indices, D]` f32
    ///
    /// # Panics
    /// When an index is not below [`len`](Self::len).
    pub fn rows(&self, indices: impl IntoIterator<Item = usize>) -> Tensor {
        let rows: Vec<f32> = indices.into_iter().flat_map(|index| self.embedding(index)).collect();
        Tensor::from_slice(&rows).view([-1, self.width() as i64])
    }

    /// Appends the embeddings of each query's `k` nearest neighbors to it, nearest first: the context of a retrieval-augmented
    /// model. Returns the neighbors too.
    ///
    /// # Shapes
    /// - `queries`: `[Q, D]`, of any length but 0
    /// - returns `[Q, 1 + k, D]` f32 on the CPU, of unit length
    ///
    /// # Errors
    /// As [`search`](Self::search).
    ///
    /// CompVis `scripts/knn2img.py:359`.
    pub fn context(
        &self,
        queries: &Tensor,
        k: usize,
        search: Search,
    ) -> Result<(Tensor, Vec<Vec<Neighbor>>)> {
        let found = self.search(queries, k, search)?;
        let indices = found.iter().flatten().map(|neighbor| neighbor.index);
        let neighbors = self.rows(indices).view([-1, k as i64, self.width() as i64]);
        Ok((Tensor::cat(&[context(queries)?, neighbors], 1), found))
    }
}

/// The context of a retrieval-augmented model without neighbors: each query is its only token.
///
/// # Shapes
/// - `queries`: `[Q, D]`, of any length but 0
/// - returns `[Q, 1, D]` f32 on the CPU, of unit length
///
/// # Errors
/// [`Error::Invalid`] for a query of zeros, NaN or Inf.
pub fn context(queries: &Tensor) -> Result<Tensor> {
    let unit = unit(queries);
    let refused = || Error::expected("queries", "finite embeddings other than zero", "zero, NaN or Inf");
    Ok(unit.ok_or_else(refused)?.unsqueeze(1))
}
