//! A partition of a database, for searching a small part of it.

use ldm_checkpoint::Checkpoint;
use ldm_core::{Error, Result, files, memory};
use tch::{Kind, Tensor};

use crate::EmbeddingIndex;
use crate::best::{Best, Neighbor};
use crate::embedding_index::{integers, shape};
use crate::names::are_ends;
use crate::search::{ROWS, values};

pub(crate) const CENTROIDS: &str = "centroids";
pub(crate) const LEAF_ENDS: &str = "leaf_ends";

/// Iterations of k-means.
const ITERATIONS: usize = 10;
/// Embeddings per leaf that the centroids are trained on.
const SAMPLE: usize = 64;
/// One in this many leaves is searched.
const SEARCHED: usize = 10;

/// Leaves of a database under training: clusters of embeddings around centroids of unit length, by k-means on the sphere
/// (Dhillon & Modha 2001).
///
/// CompVis' `train_searcher.py:95` also partitions a large database into ⌊√N⌋ leaves (ScaNN's tree), and searches the twentieth
/// part of them; it also compresses the embeddings, of which here every bit is compared. Nothing is random: the centroids
/// are trained on evenly spaced embeddings, and begin with some of these.
#[derive(Debug)]
pub(crate) struct Partition {
    centroids: Tensor, // [L, D]
    /// The leaf of each embedding.
    leaf: Vec<i64>,
}

impl Partition {
    /// Partitions embeddings `[N, D]` of unit length.
    pub(crate) fn train(all: &Tensor) -> Result<Self> {
        let (count, width) = (all.size()[0] as usize, all.size()[1] as usize);
        let leaves = count.isqrt();
        let samples = count.min(SAMPLE * leaves);
        memory::check("the partition", format!("{samples} samples"), 12. * samples as f64 * width as f64)?;
        let spaced = |some: usize, of: usize| -> Tensor {
            let indices: Vec<i64> = (0..some).map(|each| (each * of / some) as i64).collect();
            Tensor::from_slice(&indices)
        };
        let sample = all.index_select(0, &spaced(samples, count));
        let mut centroids = sample.index_select(0, &spaced(leaves, samples));
        let rows = values(&sample);
        for _ in 0..ITERATIONS {
            files::stopping()?;
            centroids = means(&rows, &nearest(&sample, &centroids)?, &centroids);
        }
        let leaf = nearest(all, &centroids)?;
        Ok(Self { centroids, leaf })
    }

    /// The embeddings in the order of their leaves, those of one leaf in their own order; and the end of each leaf.
    pub(crate) fn order(&self) -> (Vec<i64>, Vec<i64>) {
        let mut order: Vec<i64> = (0..self.leaf.len() as i64).collect();
        order.sort_by_key(|row| self.leaf[*row as usize]);
        let mut ends = vec![0; self.centroids.size()[0] as usize];
        self.leaf.iter().for_each(|leaf| ends[*leaf as usize] += 1);
        let mut end = 0;
        for each in &mut ends {
            end += *each;
            *each = end;
        }
        (order, ends)
    }

    /// The centroids, `[L, D]`.
    pub(crate) fn centroids(&self) -> Tensor {
        self.centroids.shallow_clone()
    }
}

/// The nearest centroid of each row.
fn nearest(rows: &Tensor, centroids: &Tensor) -> Result<Vec<i64>> {
    let mut all = Vec::with_capacity(rows.size()[0] as usize);
    for some in rows.split(ROWS, 0) {
        files::stopping()?;
        let leaf = some.matmul(&centroids.tr()).argmax(1, false); // [n]
        all.extend(Vec::<i64>::try_from(leaf).expect("a flat list of i64"));
    }
    Ok(all)
}

/// The mean direction of the rows of each leaf; an empty leaf keeps its centroid.
fn means(rows: &[f32], leaf: &[i64], centroids: &Tensor) -> Tensor {
    let [leaves, width] = centroids.size2().map(|(leaves, width)| [leaves, width]).expect("a matrix");
    let mut sums = vec![0_f64; (leaves * width) as usize];
    for (row, leaf) in rows.chunks_exact(width as usize).zip(leaf) {
        let start = *leaf as usize * width as usize;
        sums[start..].iter_mut().zip(row).for_each(|(sum, value)| *sum += f64::from(*value));
    }
    let sums = Tensor::from_slice(&sums).view([leaves, width]).to_kind(Kind::Float);
    let length = sums.linalg_norm(2., [1_i64].as_slice(), true, None);
    let means = &sums / length.clamp_min(f64::from(f32::MIN_POSITIVE));
    means.where_self(&length.gt(0.), centroids)
}

/// The partition of an opened database.
#[derive(Debug)]
pub(crate) struct Leaves {
    /// Number of leaves.
    count: usize,
}

impl Leaves {
    /// Reads and checks the partition of a file of `rows` embeddings, if it has one.
    pub(crate) fn open(checkpoint: &Checkpoint, rows: usize, width: usize) -> Result<Option<Self>> {
        if !checkpoint.contains(LEAF_ENDS) {
            return Ok(None);
        }
        let [count] = shape(checkpoint, LEAF_ENDS, Kind::Int64)?;
        let ends = integers(checkpoint.bytes(LEAF_ENDS).unwrap_or_default());
        if !are_ends(ends, rows) || shape::<2>(checkpoint, CENTROIDS, Kind::Float)? != [count, width] {
            let message = format!("expected a partition of {rows} embeddings, got a damaged one");
            return Err(Error::format(checkpoint.path(), message));
        }
        Ok(Some(Self { count }))
    }
}

impl EmbeddingIndex {
    /// Compares each query with the embeddings of its nearest leaves: a tenth of them, and more where these have fewer than
    /// `k` embeddings.
    pub(crate) fn search_leaves(
        &self,
        leaves: &Leaves,
        queries: &Tensor,
        k: usize,
        best: &mut [Best],
    ) -> Result<()> {
        let ends: Vec<usize> = integers(self.bytes(LEAF_ENDS)?).map(|end| end as usize).collect();
        let start = |leaf: usize| if leaf == 0 { 0 } else { ends[leaf - 1] };
        let centroids = self.mapped(CENTROIDS)?;
        let mut asked: Vec<Vec<i64>> = vec![Vec::new(); leaves.count]; // the queries of each leaf
        let scores = values(&queries.matmul(&centroids.tr())); // [Q, L]
        for (query, scores) in (0..).zip(scores.chunks_exact(leaves.count)) {
            let scored =
                scores.iter().zip(0..).map(|(score, index)| Neighbor { index, score: f64::from(*score) });
            let mut nearest: Vec<Neighbor> = scored.collect();
            nearest.sort_unstable_by(Neighbor::order);
            let mut found = 0;
            for (at, Neighbor { index: leaf, .. }) in nearest.into_iter().enumerate() {
                if at >= leaves.count.div_ceil(SEARCHED) && found >= k {
                    break;
                }
                found += ends[leaf] - start(leaf);
                asked[leaf].push(query);
            }
        }
        let all = self.embeddings()?;
        for (leaf, some) in asked.iter().enumerate() {
            let rows = start(leaf)..ends[leaf];
            if some.is_empty() || rows.is_empty() {
                continue;
            }
            let found = all.narrow(0, rows.start as i64, rows.len() as i64);
            let scores = values(&queries.index_select(0, &Tensor::from_slice(some)).matmul(&found.tr()));
            for (query, scores) in some.iter().zip(scores.chunks_exact(rows.len())) {
                let best = &mut best[*query as usize];
                rows.clone().zip(scores).for_each(|(index, score)| best.offer(index, *score));
            }
        }
        Ok(())
    }
}
