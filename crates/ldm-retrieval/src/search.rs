//! Nearest neighbors by cosine.

use ldm_core::{Error, Result};
use tch::{Device, Kind, Tensor};

use crate::best::Best;
use crate::{EmbeddingIndex, Neighbor};

/// Rows of the database and queries per matrix product: 4096 · 256 scores are 4 MB.
pub(crate) const ROWS: i64 = 4096;
const QUERIES: i64 = 256;

/// Candidates beyond `k` whose scores are computed again: a product of matrices rounds differently with the shapes of the
/// matrices, which must not change the order of the result.
const SPARE: usize = 32;

/// The images to compare a query with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Search {
    /// All.
    Exact,
    /// Those in the nearest parts of a database with a partition; all in one without.
    Partitioned,
}

impl EmbeddingIndex {
    /// Finds the `k` images that are most similar to each query, the most similar first; of equal scores the lower index.
    /// The result of a query does not depend on the others.
    ///
    /// # Shapes
    /// - `queries`: `[Q, D]`, of any length but 0
    ///
    /// # Errors
    /// [`Error::Shape`] for another shape; [`Error::Invalid`] for a query of zeros, NaN or Inf, and for a `k` that is 0 or
    /// above the number of images; [`Error::Format`] when embeddings are NaN or Inf.
    ///
    /// CompVis `scripts/knn2img.py:151` `Searcher.search`, and its `score_brute_force`.
    pub fn search(&self, queries: &Tensor, k: usize, search: Search) -> Result<Vec<Vec<Neighbor>>> {
        if k == 0 || k > self.len() {
            let expected = format!("1 to {}, the images of {}", self.len(), self.path().display());
            return Err(Error::expected("k", expected, k));
        }
        let queries = self.queries(queries)?;
        let count = queries.size()[0] as usize;
        let mut best: Vec<Best> = (0..count).map(|_| Best::new(k + SPARE)).collect();
        match self.leaves().filter(|_| search == Search::Partitioned) {
            Some(leaves) => self.search_leaves(leaves, &queries, k, &mut best)?,
            None => self.search_all(&queries, &mut best)?,
        }
        let values = values(&queries);
        let rows = values.chunks_exact(self.width());
        rows.zip(best).map(|(query, best)| self.rank(query, best, k)).collect()
    }

    /// Checks queries, and scales them to unit length.
    fn queries(&self, queries: &Tensor) -> Result<Tensor> {
        let width = self.width() as i64;
        if queries.dim() != 2 || queries.size()[1] != width {
            let expected = format!("[Q, {width}], as the embeddings of {}", self.path().display());
            return Err(Error::Shape { what: "queries".into(), expected, got: queries.size() });
        }
        unit(queries).ok_or_else(|| {
            Error::expected("queries", "finite embeddings other than zero", "zero, NaN or Inf")
        })
    }

    fn search_all(&self, queries: &Tensor, best: &mut [Best]) -> Result<()> {
        let all = self.embeddings()?;
        for start in (0..self.len() as i64).step_by(ROWS as usize) {
            let rows = all.narrow(0, start, ROWS.min(self.len() as i64 - start));
            let indices = start as usize..;
            for (at, some) in (0..).step_by(QUERIES as usize).zip(queries.split(QUERIES, 0)) {
                let scores = values(&some.matmul(&rows.tr())); // [q, rows]
                for (scores, best) in scores.chunks_exact(rows.size()[0] as usize).zip(&mut best[at..]) {
                    scores.iter().zip(indices.clone()).for_each(|(score, index)| best.offer(index, *score));
                }
            }
        }
        Ok(())
    }

    /// Orders the best of a query by scores in f64, and keeps `k` of them.
    fn rank(&self, query: &[f32], best: Best, k: usize) -> Result<Vec<Neighbor>> {
        let score = |index| {
            let products = self.embedding(index).zip(query).map(|(x, y)| f64::from(x) * f64::from(*y));
            Neighbor { index, score: products.sum() }
        };
        let mut found: Vec<Neighbor> = best.indices().map(score).collect();
        found.sort_unstable_by(Neighbor::order);
        found.truncate(k);
        if found.len() < k || found.iter().any(|neighbor| !neighbor.score.is_finite()) {
            return Err(self.refuse("expected finite embeddings, got NaN or Inf"));
        }
        Ok(found)
    }
}

/// Scales the rows of a matrix to unit length, in f32 on the CPU; `None` if one is zero, NaN or Inf.
pub(crate) fn unit(x: &Tensor) -> Option<Tensor> {
    let x = x.detach().to_device(Device::Cpu).to_kind(Kind::Float);
    let length = x.linalg_norm(2., [1_i64].as_slice(), true, None);
    let valid = length.isfinite().logical_and(&length.gt(0.)).all().int64_value(&[]) == 1;
    valid.then(|| x / length)
}

/// The elements of an f32 tensor on the CPU, in order.
pub(crate) fn values(x: &Tensor) -> Vec<f32> {
    Vec::try_from(x.contiguous().flatten(0, -1)).expect("f32 on the CPU")
}
