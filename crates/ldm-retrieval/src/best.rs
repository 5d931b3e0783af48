//! The best of many scores.

use std::cmp::Ordering;
use std::collections::BinaryHeap;

/// An image of a database, and its similarity to a query.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Neighbor {
    /// Index of the image in the database.
    pub index: usize,
    /// Cosine of the angle between the embeddings, in `[-1, 1]`.
    pub score: f64,
}

impl Neighbor {
    /// Orders the better first: the higher score, and of equal scores the lower index.
    pub(crate) fn order(&self, other: &Self) -> Ordering {
        other.score.total_cmp(&self.score).then(self.index.cmp(&other.index))
    }
}

/// A neighbor in the order of [`Neighbor::order`].
#[derive(Debug, Clone, Copy)]
struct Ranked(Neighbor);

impl Ord for Ranked {
    fn cmp(&self, other: &Self) -> Ordering {
        self.0.order(&other.0)
    }
}

impl PartialOrd for Ranked {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl PartialEq for Ranked {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other).is_eq()
    }
}

impl Eq for Ranked {}

/// The best of the scores that were offered, independent of their order.
#[derive(Debug)]
pub(crate) struct Best {
    most: usize,
    /// The worst on top.
    found: BinaryHeap<Ranked>,
    /// No score below this one is among the best.
    least: f32,
}

impl Best {
    /// Keeps `most` scores, at least one.
    pub(crate) fn new(most: usize) -> Self {
        Self { most, found: BinaryHeap::with_capacity(most + 1), least: f32::NEG_INFINITY }
    }

    /// Offers a score; NaN is never among the best.
    pub(crate) fn offer(&mut self, index: usize, score: f32) {
        if score >= self.least {
            self.found.push(Ranked(Neighbor { index, score: f64::from(score) }));
            if self.found.len() > self.most {
                self.found.pop();
            }
            if let (true, Some(worst)) = (self.found.len() == self.most, self.found.peek()) {
                self.least = worst.0.score as f32;
            }
        }
    }

    /// Returns the indices of the best.
    pub(crate) fn indices(self) -> impl Iterator<Item = usize> {
        self.found.into_iter().map(|Ranked(neighbor)| neighbor.index)
    }
}
