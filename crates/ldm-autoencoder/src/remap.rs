//! Renumbering of codebook indices to those in use.

use std::path::Path;

use ldm_checkpoint::read_npy;
use ldm_core::{Error, NoiseSource, Result};
use serde::de::{Deserializer, Error as _, Visitor};
use serde::{Deserialize, Serialize, Serializer};
use tch::{Kind, Tensor, nn};

/// Replacement for an index that is not in use: in YAML `random`, `extra` or a number.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub enum UnknownIndex {
    /// A random index in use, drawn each time.
    #[default]
    Random,
    /// An additional index after all others.
    Extra,
    /// A fixed index.
    Fixed(i64),
}

/// The indices in use, buffer `used` `[U]` i64. taming-transformers `quantize.py:234`.
#[derive(Debug)]
pub(crate) struct Remap {
    used: Tensor,
    unknown: UnknownIndex,
}

impl Remap {
    pub(crate) fn new(vs: &nn::Path, path: &Path, entries: i64, unknown: UnknownIndex) -> Result<Self> {
        let indices = read_indices(path)?;
        if indices.is_empty() {
            return Err(Error::format(path, "`remap`: expected indices in use, got none"));
        }
        if let Some(index) = indices.iter().find(|index| !(0..entries).contains(*index)) {
            return Err(Error::format(
                path,
                format!("`remap`: expected indices in 0..{entries}, got {index}"),
            ));
        }
        if let UnknownIndex::Fixed(index) = unknown
            && !(0..indices.len() as i64).contains(&index)
        {
            let count = indices.len();
            return Err(Error::invalid(format!(
                "`unknown_index`: expected an index in 0..{count}, got {index}"
            )));
        }
        let used = vs.add("used", Tensor::from_slice(&indices).to_device(vs.device()), false);
        Ok(Self { used, unknown })
    }

    /// Number of indices after renumbering.
    pub(crate) fn count(&self) -> i64 {
        self.used.size()[0] + i64::from(self.unknown == UnknownIndex::Extra)
    }

    /// Maps indices to positions among those in use. `[B, L]` → `[B, L]`.
    pub(crate) fn to_used(&self, indices: &Tensor, noise: &mut dyn NoiseSource) -> Tensor {
        // Binary search; a stable sort keeps the first of equals, as CompVis.
        let (sorted, order) = self.used().sort_stable(true, 0, false);
        let last = sorted.size()[0] - 1;
        let at = indices.searchsorted(&sorted, false, false, "left", None::<Tensor>).clamp_max(last);
        let known = sorted.take(&at).eq_tensor(indices);
        let places = order.take(&at);
        let instead = match self.unknown {
            UnknownIndex::Random => {
                if bool::try_from(known.all()).expect("a boolean") {
                    return places;
                }
                // Uniform by the CDF of the normal, so that a sample draws the same in any batch.
                let like = indices.to_kind(Kind::Float);
                let uniform = noise.like(&like).special_ndtr();
                (uniform * self.count() as f64)
                    .floor()
                    .clamp(0., (self.count() - 1) as f64)
                    .to_kind(Kind::Int64)
            }
            UnknownIndex::Extra => places.full_like(self.count() - 1),
            UnknownIndex::Fixed(index) => places.full_like(index),
        };
        places.where_self(&known, &instead)
    }

    /// Maps positions to codebook indices; the extra one maps to that of position 0. `[B, L]` → `[B, L]`.
    pub(crate) fn to_all(&self, places: &Tensor) -> Tensor {
        let used = self.used();
        let places = if self.unknown == UnknownIndex::Extra {
            places.where_self(&places.lt(used.size()[0]), &places.zeros_like())
        } else {
            places.shallow_clone()
        };
        used.take(&places)
    }

    fn used(&self) -> &Tensor {
        // A blanket `VarStore::set_kind(bf16)` would round indices; `VarStore::bfloat16` leaves integers alone.
        assert_eq!(self.used.kind(), Kind::Int64, "`quantize.used` holds indices and must stay i64");
        &self.used
    }
}

/// Reads a one-dimensional array of integers from a `.npy` file.
fn read_indices(path: &Path) -> Result<Vec<i64>> {
    let array = read_npy(path).map_err(|error| match error {
        Error::Format { path, message } => Error::format(path, format!("`remap`: {message}")),
        other => other,
    })?;
    let integers = [Kind::Int64, Kind::Int, Kind::Int16, Kind::Int8, Kind::Uint8];
    if array.dim() != 1 || !integers.contains(&array.kind()) {
        let (shape, kind) = (array.size(), array.kind());
        return Err(Error::format(
            path,
            format!("`remap`: expected a one-dimensional .npy array of integers, got {shape:?} of {kind:?}"),
        ));
    }
    Ok(Vec::try_from(&array.to_kind(Kind::Int64))?)
}

impl Serialize for UnknownIndex {
    fn serialize<S: Serializer>(&self, serializer: S) -> std::result::Result<S::Ok, S::Error> {
        match self {
            Self::Random => serializer.serialize_str("random"),
            Self::Extra => serializer.serialize_str("extra"),
            Self::Fixed(index) => serializer.serialize_i64(*index),
        }
    }
}

impl<'de> Deserialize<'de> for UnknownIndex {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> std::result::Result<Self, D::Error> {
        struct UnknownIndexVisitor;
        impl Visitor<'_> for UnknownIndexVisitor {
            type Value = UnknownIndex;

            fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str("`random`, `extra` or an index")
            }

            fn visit_str<E: serde::de::Error>(self, word: &str) -> std::result::Result<UnknownIndex, E> {
                match word {
                    "random" => Ok(UnknownIndex::Random),
                    "extra" => Ok(UnknownIndex::Extra),
                    _ => Err(E::invalid_value(serde::de::Unexpected::Str(word), &self)),
                }
            }

            fn visit_i64<E: serde::de::Error>(self, index: i64) -> std::result::Result<UnknownIndex, E> {
                Ok(UnknownIndex::Fixed(index))
            }

            fn visit_u64<E: serde::de::Error>(self, index: u64) -> std::result::Result<UnknownIndex, E> {
                i64::try_from(index).map(UnknownIndex::Fixed).map_err(E::custom)
            }
        }
        deserializer.deserialize_any(UnknownIndexVisitor).map_err(D::Error::custom)
    }
}
