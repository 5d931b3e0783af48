//! Mapping of a state dict to another implementation's names and shapes.

use std::collections::BTreeMap;

use tch::Tensor;

use crate::KeyMap;
use crate::source::{Source, split};
use ldm_core::{Error, Result};

/// Tensor names and shapes.
pub type Shapes = BTreeMap<String, Vec<i64>>;

/// A mapping between our state dict of a model (*native*) and another implementation's (*mapped*): names, and some
/// shapes. It is data computed from a config. No value changes, so a round trip is exact to the bit.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct StateDictMapping {
    /// The names.
    pub keys: KeyMap,
    /// Changes other than the name, by native name.
    pub changes: Vec<(String, TensorChange)>,
}

/// A difference in a tensor other than its name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum TensorChange {
    /// Another shape: a linear layer for a convolution of kernel 1.
    Reshaped {
        /// The native shape.
        native: Vec<i64>,
        /// The mapped shape.
        mapped: Vec<i64>,
    },
    /// Queries, keys and values, one tensor natively and three when mapped.
    FusedQkv {
        /// The names of the three, after [`StateDictMapping::keys`].
        names: [String; 3],
        /// The shape of the fused tensor.
        native: Vec<i64>,
        /// The shape of each of the three.
        mapped: Vec<i64>,
        /// Groups of queries, keys and values in the rows of the fused tensor: the number of heads if each head has its
        /// own, 1 if all queries come first.
        heads: i64,
    },
}

impl StateDictMapping {
    /// Converts native tensors to the other implementation's names and shapes. Tensors that the mapping does not
    /// mention stay as they are.
    ///
    /// # Errors
    /// [`Error::Shape`] when a tensor does not have the shape of the mapping.
    pub fn to_mapped(&self, tensors: &[(String, Tensor)]) -> Result<Vec<(String, Tensor)>> {
        let changes: BTreeMap<&str, &TensorChange> =
            self.changes.iter().map(|(name, change)| (name.as_str(), change)).collect();
        let mut changed = Vec::with_capacity(tensors.len());
        for (name, tensor) in tensors {
            let Some(change) = changes.get(name.as_str()) else {
                changed.push((name.clone(), tensor.shallow_clone()));
                continue;
            };
            let (TensorChange::Reshaped { native, mapped } | TensorChange::FusedQkv { native, mapped, .. }) =
                change;
            if *native != tensor.size() {
                let (what, expected, got) =
                    (format!("tensor `{name}`"), format!("{native:?}"), tensor.size());
                return Err(Error::Shape { what, expected, got });
            }
            match change {
                TensorChange::Reshaped { .. } => {
                    changed.push((name.clone(), tensor.reshape(mapped.as_slice())));
                }
                TensorChange::FusedQkv { names, heads, .. } => {
                    changed.extend(names.iter().cloned().zip(split(tensor, mapped, *heads)));
                }
            }
        }
        let back = self.keys.inverse();
        Ok(changed.into_iter().map(|(name, tensor)| (back.apply(&name), tensor)).collect())
    }

    /// [`StateDictMapping::to_mapped`] for names and shapes alone.
    pub fn mapped_shapes(&self, native: &Shapes) -> Shapes {
        let mut shapes = native.clone();
        for (name, change) in &self.changes {
            let Some(shape) = shapes.get_mut(name) else { continue };
            match change {
                TensorChange::Reshaped { mapped, .. } => shape.clone_from(mapped),
                TensorChange::FusedQkv { names, mapped, .. } => {
                    shapes.remove(name);
                    shapes.extend(names.iter().map(|name| (name.clone(), mapped.clone())));
                }
            }
        }
        let back = self.keys.inverse();
        shapes.into_iter().map(|(name, shape)| (back.apply(&name), shape)).collect()
    }

    /// Gives entries with native names their native shapes.
    pub(crate) fn apply(&self, entries: &mut BTreeMap<String, Source>) {
        for (name, change) in &self.changes {
            match change {
                TensorChange::Reshaped { native, mapped } => {
                    if let Some(entry) = entries.get_mut(name).filter(|entry| entry.info.shape == *mapped) {
                        entry.info.shape.clone_from(native);
                    }
                }
                TensorChange::FusedQkv { names, native, mapped, heads } => {
                    let [Some(q), Some(k), Some(v)] = names.each_ref().map(|name| entries.get(name)) else {
                        continue;
                    };
                    let fits = [q, k, v]
                        .iter()
                        .all(|part| part.info.shape == *mapped && part.info.kind == q.info.kind);
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
