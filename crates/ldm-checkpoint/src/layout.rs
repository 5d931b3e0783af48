//! How another implementation lays out the same weights.

use std::collections::BTreeMap;

use tch::Tensor;

use super::KeyMap;
use super::source::{Source, split};
use ldm_core::{Error, Result};

/// Names and shapes of tensors.
pub type Shapes = BTreeMap<String, Vec<i64>>;

/// How another implementation keeps the weights of a model: other names, and here and there another shape. Data made
/// from a config by a pure function. No value changes, so both ways end where they began, bit for bit.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct StateDictMapping {
    /// What else its names are.
    pub keys: KeyMap,
    /// What changes beside the name, by our name.
    pub changes: Vec<(String, TensorChange)>,
}

/// What of a tensor is different beside its name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum TensorChange {
    /// The shape: a linear layer for a convolution of kernel 1.
    Reshaped {
        /// The shape here.
        native: Vec<i64>,
        /// The shape there.
        unsupported_kind: Vec<i64>,
    },
    /// Queries, keys and values are three tensors there and one here.
    FusedQkv {
        /// The three, under the names [`StateDictMapping::keys`] gives them.
        names: [String; 3],
        /// The shape of the one.
        native: Vec<i64>,
        /// The shape of each of the three.
        unsupported_kind: Vec<i64>,
        /// How often queries, keys and values follow one another in the rows of the one: the number of heads where
        /// each head has its own, 1 where all queries come first.
        heads: i64,
    },
}

impl StateDictMapping {
    /// The tensors of a model of ours under the other implementation's names and in its shapes. Tensors the layout
    /// does not speak of keep theirs.
    ///
    /// # Errors
    /// [`Error::Invalid`] when a tensor is not of the shape the layout says.
    pub fn to_mapped(&self, tensors: &[(String, Tensor)]) -> Result<Vec<(String, Tensor)>> {
        let changes: BTreeMap<&str, &TensorChange> =
            self.changes.iter().map(|(name, change)| (name.as_str(), change)).collect();
        let mut changed = Vec::with_capacity(tensors.len());
        for (name, tensor) in tensors {
            let Some(change) = changes.get(name.as_str()) else {
                changed.push((name.clone(), tensor.shallow_clone()));
                continue;
            };
            let (TensorChange::Reshaped { native, unsupported_kind }
            | TensorChange::FusedQkv { native, unsupported_kind, .. }) = change;
            if *native != tensor.size() {
                let found = tensor.size();
                return Err(Error::invalid(format!(
                    "tensor `{name}`: expected the shape {native:?}, got: {found:?}"
                )));
            }
            match change {
                TensorChange::Reshaped { .. } => {
                    changed.push((name.clone(), tensor.reshape(unsupported_kind.as_slice())))
                }
                TensorChange::FusedQkv { names, heads, .. } => {
                    changed.extend(names.iter().cloned().zip(split(tensor, unsupported_kind, *heads)));
                }
            }
        }
        let back = self.keys.inverse();
        Ok(changed.into_iter().map(|(name, tensor)| (back.apply(&name), tensor)).collect())
    }

    /// [`StateDictMapping::to_mapped`] of names and shapes alone.
    pub fn mapped_shapes(&self, native: &Shapes) -> Shapes {
        let mut shapes = native.clone();
        for (name, change) in &self.changes {
            let Some(shape) = shapes.get_mut(name) else { continue };
            match change {
                TensorChange::Reshaped { unsupported_kind, .. } => shape.clone_from(unsupported_kind),
                TensorChange::FusedQkv { names, unsupported_kind, .. } => {
                    shapes.remove(name);
                    shapes.extend(names.iter().map(|name| (name.clone(), unsupported_kind.clone())));
                }
            }
        }
        let back = self.keys.inverse();
        shapes.into_iter().map(|(name, shape)| (back.apply(&name), shape)).collect()
    }

    /// Gives entries that already have our names our shapes.
    pub(crate) fn apply(&self, entries: &mut BTreeMap<String, Source>) {
        for (name, change) in &self.changes {
            match change {
                TensorChange::Reshaped { native, unsupported_kind } => {
                    if let Some(entry) =
                        entries.get_mut(name).filter(|entry| entry.info.shape == *unsupported_kind)
                    {
                        entry.info.shape.clone_from(native);
                    }
                }
                TensorChange::FusedQkv { names, native, unsupported_kind, heads } => {
                    let [Some(q), Some(k), Some(v)] = names.each_ref().map(|name| entries.get(name)) else {
                        continue;
                    };
                    let fits = [q, k, v]
                        .iter()
                        .all(|part| part.info.shape == *unsupported_kind && part.info.kind == q.info.kind);
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
