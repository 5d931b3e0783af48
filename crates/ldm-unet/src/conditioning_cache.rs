//! Conditionings with everything that is constant over the steps.

use std::sync::atomic::{AtomicU64, Ordering};

use ldm_core::Tile;
use tch::Tensor;

use crate::cross_attention::KeyValue;

/// A conditioning with everything that is constant over the steps, by [`UNet::precompute`](crate::UNet::precompute).
#[derive(Debug)]
pub struct ConditioningCache {
    pub(crate) concat: Option<Tensor>,
    pub(crate) label: Option<Tensor>,
    pub(crate) context: Option<Vec<KeyValue>>,
    /// Different for every call of `precompute`.
    id: u64,
}

impl ConditioningCache {
    /// The inputs of a network in the dtype of its weights.
    pub(crate) fn new(concat: Option<Tensor>, label: Option<Tensor>, context: Option<Vec<KeyValue>>) -> Self {
        static CALLS: AtomicU64 = AtomicU64::new(0);
        Self { concat, label, context, id: CALLS.fetch_add(1, Ordering::Relaxed) }
    }

    /// Returns the cache for a tile of the sample: a tile of the concat, and everything else unchanged.
    #[must_use]
    pub fn part(&self, tile: Tile) -> Self {
        Self { concat: self.concat.as_ref().map(|concat| tile.of(concat)), ..self.map(Tensor::shallow_clone) }
    }

    /// A copy in memory of its own.
    pub(crate) fn copy(&self) -> Self {
        self.map(Tensor::copy)
    }

    fn map(&self, each: impl Fn(&Tensor) -> Tensor) -> Self {
        let pair = |pair: &KeyValue| KeyValue { key: each(&pair.key), value: each(&pair.value) };
        Self {
            concat: self.concat.as_ref().map(&each),
            label: self.label.as_ref().map(&each),
            context: self.context.as_ref().map(|pairs| pairs.iter().map(pair).collect()),
            id: self.id,
        }
    }

    /// Returns true for parts of the same call of `precompute`, which differ in the concat at most.
    pub(crate) fn is_of(&self, other: &Self) -> bool {
        self.id == other.id
    }

    /// Overwrites the tensors with those of `other`, which have the same shapes.
    pub(crate) fn overwrite(&mut self, other: &Self) {
        overwrite(&mut self.concat, other.concat.as_ref());
        if self.is_of(other) {
            return;
        }
        overwrite(&mut self.label, other.label.as_ref());
        let pairs = self.context.iter_mut().flatten().zip(other.context.iter().flatten());
        for (place, pair) in pairs {
            place.key.copy_(&pair.key);
            place.value.copy_(&pair.value);
        }
        self.id = other.id;
    }
}

/// Overwrites a tensor, if it is there.
pub(crate) fn overwrite(place: &mut Option<Tensor>, with: Option<&Tensor>) {
    if let (Some(place), Some(with)) = (place, with) {
        place.copy_(with);
    }
}
