//! Fingerprint of a latent cache.

use std::collections::BTreeMap;

use sha2::{Digest, Sha256};
use tch::{Device, Kind, Tensor};

use super::Augmentations;

/// Version of the file format.
const FORMAT: &str = "ldm latents 1";

/// The images and the first stage that a cache was computed from. A cache with another fingerprint is refused.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CacheFingerprint {
    /// The fingerprints of the augmented datasets.
    images: String,
    /// SHA-256 of the first stage's weights.
    first_stage: String,
}

impl CacheFingerprint {
    /// The fingerprint of augmented datasets and of the first stage in `weights`, which are named and sorted; other
    /// weights are ignored.
    pub fn new(augmentations: &Augmentations, weights: &[(String, Tensor)]) -> Self {
        let images: Vec<String> = augmentations.sets.iter().map(|set| set.fingerprint()).collect();
        let mut hash = Sha256::new();
        for (name, tensor) in weights.iter().filter(|(name, _)| name.starts_with("first_stage_model.")) {
            hash.update(name.as_bytes());
            hash.update(format!("{:?}", tensor.size()));
            let flat =
                tensor.detach().to_device(Device::Cpu).to_kind(Kind::Float).contiguous().flatten(0, -1);
            hash.update(Vec::<u8>::try_from(flat.view_dtype(Kind::Uint8)).expect("bytes on the CPU"));
        }
        Self { images: images.join(" "), first_stage: format!("{:x}", hash.finalize()) }
    }

    /// The metadata of a cache file with this fingerprint.
    pub(super) fn metadata(&self) -> BTreeMap<String, String> {
        [("format", FORMAT), ("images", &self.images), ("first_stage", &self.first_stage)]
            .map(|(key, value)| (key.to_owned(), value.to_owned()))
            .into()
    }

    /// The first difference from the metadata of a cache: expected, got.
    pub(super) fn difference(&self, metadata: &BTreeMap<String, String>) -> Option<[&'static str; 2]> {
        let ours = self.metadata();
        let same = |key: &str| metadata.get(key) == ours.get(key);
        match (same("format"), same("images"), same("first_stage")) {
            (false, ..) => Some(["a latent cache in the current format", "another format"]),
            (_, false, _) => Some(["latents of the training images", "latents of other images"]),
            (_, _, false) => Some(["latents of this model's first stage", "latents of another first stage"]),
            _ => None,
        }
    }
}
