//! The latent cache as a dataset.

use std::path::{Path, PathBuf};

use ldm_checkpoint::Checkpoint;
use ldm_core::{Error, Result};
use ldm_data::{Dataset, Example, Latent, Peek, Rng};
use ldm_libtorch::{MappedFile, map_file};

use super::{Augmentations, CacheFingerprint};

/// Bytes of a value.
const WIDTH: usize = size_of::<f32>();
const REMOVE: &str = "try removing the file to encode the images again";

/// A dataset with cached latents in place of images; everything else comes from the original dataset.
///
/// The cache holds the moments of the posterior, so that latents are still sampled in every step; for VQ, the latent
/// before quantization. Randomly flipped images are cached both ways; other random augmentations are refused
/// ([`Augmentations`]).
pub struct LatentCache {
    augmentations: Augmentations,
    path: PathBuf,
    bytes: MappedFile,
    /// The offset of the first image's values.
    start: usize,
    /// `[C, h, w]` of an image's moments.
    size: [usize; 3],
    /// `[3, H, W]` of the images.
    pixels: [usize; 3],
}

impl std::fmt::Debug for LatentCache {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("LatentCache")
            .field("path", &self.path)
            .field("size", &self.size)
            .finish_non_exhaustive()
    }
}

impl LatentCache {
    /// Opens the cache at `path`.
    ///
    /// # Errors
    /// [`Error::Format`] when its fingerprint differs or the file is damaged; [`Error::Io`] when it cannot be read.
    pub fn open(path: &Path, augmentations: Augmentations, fingerprint: &CacheFingerprint) -> Result<Self> {
        let checkpoint = Checkpoint::open(path)?;
        if let Some([expected, got]) = fingerprint.difference(checkpoint.metadata()) {
            return Err(Error::format(path, format!("expected {expected}, got {got}; {REMOVE}")));
        }
        let damaged =
            || Error::format(path, format!("expected a complete latent cache, got a damaged file; {REMOVE}"));
        let names: Vec<&str> = checkpoint.names().collect();
        let shape = names.first().and_then(|name| checkpoint.info(name)).ok_or_else(damaged)?.shape;
        let [_, c, h, w] = shape[..] else { return Err(damaged()) };
        let size = [c, h, w].map(|side| side as usize);
        let pixels =
            (0..augmentations.sets[0].len()).find_map(|index| augmentations.sets[0].get(index, 0).ok());
        let pixels = pixels.map_or([3, 0, 0], |example| example.size);
        let bytes = map_file(path).map_err(Error::io(path))?;
        let head = bytes.first_chunk().ok_or_else(damaged)?;
        let start = size_of::<u64>().saturating_add(u64::from_le_bytes(*head) as usize);
        let records = [augmentations.sets.len(), augmentations.sets[0].len(), WIDTH];
        let length = records.iter().chain(&size).try_fold(1_usize, |all, each| all.checked_mul(*each));
        if size.contains(&0) || length.and_then(|length| length.checked_add(start)) != Some(bytes.len()) {
            return Err(damaged());
        }
        Ok(Self { augmentations, path: path.to_path_buf(), bytes, start, size, pixels })
    }

    fn latent(&self, view: usize, index: usize) -> Option<Latent> {
        let length = self.size.iter().product::<usize>() * WIDTH;
        let start = self.start + (view * self.len() + index) * length;
        let bytes = &self.bytes[start..start + length];
        let values: Vec<f32> = bytes
            .chunks_exact(WIDTH)
            .map(|each| f32::from_le_bytes(each.try_into().expect("four bytes")))
            .collect();
        (!values[0].is_nan()).then_some(Latent { values, size: self.size })
    }
}

impl Dataset for LatentCache {
    fn len(&self) -> usize {
        self.augmentations.sets[0].len()
    }

    fn get(&self, index: usize, seed: u64) -> Result<Example> {
        let flipped = self.augmentations.sets.len() > 1
            && Rng::of(&[seed, index as u64, 2]).unit() < self.augmentations.flip;
        let view = usize::from(flipped);
        let example = self.augmentations.sets[view].without_image(index, seed)?;
        let latent = self.latent(view, index);
        let latent = latent.ok_or_else(|| {
            Error::data(&example.name, "expected a cached latent, got none, as the image was unreadable")
        })?;
        Ok(Example { size: self.pixels, latent: Some(latent), ..example })
    }

    fn passed_over(&self) -> &[String] {
        self.augmentations.sets[0].passed_over()
    }

    fn without_image(&self, index: usize, seed: u64) -> Result<Example> {
        self.get(index, seed)
    }

    fn peek(&self, index: usize) -> Result<Peek> {
        self.augmentations.sets[0].peek(index)
    }

    fn classes(&self) -> &[String] {
        self.augmentations.sets[0].classes()
    }

    fn box_classes(&self) -> &[String] {
        self.augmentations.sets[0].box_classes()
    }

    fn label_classes(&self) -> &[String] {
        self.augmentations.sets[0].label_classes()
    }

    fn shards_by_rank(&self) -> Option<Vec<usize>> {
        self.augmentations.sets[0].shards_by_rank()
    }

    fn weights(&self) -> Option<&[f64]> {
        self.augmentations.sets[0].weights()
    }

    fn name(&self) -> String {
        self.augmentations.sets[0].name()
    }

    fn fingerprint(&self) -> String {
        self.augmentations.sets[0].fingerprint()
    }
}
