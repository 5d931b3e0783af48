//! How another implementation lays out the same weights.

use std::collections::BTreeMap;

use tch::Tensor;

use super::KeyMap;
use super::source::{Source, split};
use crate::{Error, Result};

/// Names and shapes of tensors.
pub type Shapes = BTreeMap<String, Vec<i64>>;

/// How another implementation keeps the weights of a model: other names, and here and there another shape. Data made
/// from a config by a pure function. No value changes, so both ways end where they began, bit for bit.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Layout {
    /// What else its names are.
    pub keys: KeyMap,
    /// What changes beside the name, by our name.
    pub changes: Vec<(String, Change)>,
}

/// What of a tensor is different beside its name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Change {
    /// The shape: a linear layer for a convolution of kernel 1.
    Reshaped {
        /// The shape here.
        native: Vec<i64>,
        /// The shape there.
        foreign: Vec<i64>,
    },
    /// Queries, keys and values are three tensors there and one here.
    Thirds {
        /// The three, under the names [`Layout::keys`] gives them.
        names: [String; 3],
        /// The shape of the one.
        native: Vec<i64>,
        /// The shape of each of the three.
        foreign: Vec<i64>,
        /// How often queries, keys and values follow one another in the rows of the one: the number of heads where
        /// each head has its own, 1 where all queries come first.
        heads: i64,
    },
}

impl Layout {
    /// The tensors of a model of ours under the other implementation's names and in its shapes. Tensors the layout
    /// does not speak of keep theirs.
    ///
    /// # Errors
    /// [`Error::Invalid`] when a tensor is not of the shape the layout says.
    pub fn to_foreign(&self, tensors: &[(String, Tensor)]) -> Result<Vec<(String, Tensor)>> {
        let changes: BTreeMap<&str, &Change> =
            self.changes.iter().map(|(name, change)| (name.as_str(), change)).collect();
        let mut changed = Vec::with_capacity(tensors.len());
        for (name, tensor) in tensors {
            let Some(change) = changes.get(name.as_str()) else {
                changed.push((name.clone(), tensor.shallow_clone()));
                continue;
            };
            let (Change::Reshaped { native, foreign } | Change::Thirds { native, foreign, .. }) = change;
            if *native != tensor.size() {
                let found = tensor.size();
                return Err(Error::invalid(format!(
                    "tensor `{name}`: expected the shape {native:?}, got: {found:?}"
                )));
            }
            match change {
                Change::Reshaped { .. } => changed.push((name.clone(), tensor.reshape(foreign.as_slice()))),
                Change::Thirds { names, heads, .. } => {
                    changed.extend(names.iter().cloned().zip(split(tensor, foreign, *heads)));
                }
            }
        }
        let back = self.keys.inverse();
        Ok(changed.into_iter().map(|(name, tensor)| (back.apply(&name), tensor)).collect())
    }

    /// [`Layout::to_foreign`] of names and shapes alone.
    pub fn foreign_shapes(&self, native: &Shapes) -> Shapes {
        let mut shapes = native.clone();
        for (name, change) in &self.changes {
            let Some(shape) = shapes.get_mut(name) else { continue };
            match change {
                Change::Reshaped { foreign, .. } => shape.clone_from(foreign),
                Change::Thirds { names, foreign, .. } => {
                    shapes.remove(name);
                    shapes.extend(names.iter().map(|name| (name.clone(), foreign.clone())));
                }
            }
        }
        let back = self.keys.inverse();
        shapes.into_iter().map(|(name, shape)| (back.apply(&name), shape)).collect()
    }

    /// Gives entries that already have our names our shapes.
    pub(super) fn apply(&self, entries: &mut BTreeMap<String, Source>) {
        for (name, change) in &self.changes {
            match change {
                Change::Reshaped { native, foreign } => {
                    if let Some(entry) = entries.get_mut(name).filter(|entry| entry.info.shape == *foreign) {
                        entry.info.shape.clone_from(native);
                    }
                }
                Change::Thirds { names, native, foreign, heads } => {
                    let [Some(q), Some(k), Some(v)] = names.each_ref().map(|name| entries.get(name)) else {
                        continue;
                    };
                    let fits = [q, k, v]
                        .iter()
                        .all(|part| part.info.shape == *foreign && part.info.kind == q.info.kind);
                    if !fits || entries.contains_key(name) {
                        continue;
                    }
                    let whole = Source::join([q, k, v], native, *heads);
                    for name in names {
                        entries.remove(name);
                    }
                    entries.insert(name.clone(), whole);
                }
            }
        }
    }
}
