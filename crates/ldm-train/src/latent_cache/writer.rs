//! Writing a latent cache.

use std::cell::RefCell;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};

use ldm_checkpoint::{Streamed, TensorInfo, save_streamed};
use ldm_core::{Error, Result};
use ldm_data::{Dataset, Example, collate};
use tch::{Device, Kind, Tensor};

use super::{Augmentations, CacheFingerprint, LatentCache};
use crate::objective::LatentEncoder;
use crate::run::event::Event;

/// Encodes a dataset into a cache file.
pub(crate) struct CacheWriter<'a> {
    pub(crate) augmentations: &'a Augmentations,
    /// Images encoded at once: as many as in a training step, also in the last chunk, since the last bits of an
    /// encoder's output depend on the batch size.
    pub(crate) batch: usize,
    /// Fails at an unreadable image; otherwise the image is skipped, and the loader reports it.
    pub(crate) strict: bool,
    pub(crate) encoder: &'a dyn LatentEncoder,
}

impl CacheWriter<'_> {
    /// Opens the cache at `path`, after writing it if it does not exist; `None` if `stop` was set.
    ///
    /// # Errors
    /// As [`LatentCache::open`]; [`Error::Io`] when the file cannot be written; [`Error::Data`] when images differ in
    /// size or none can be read.
    pub(crate) fn open_or_write(
        &self,
        path: &Path,
        stop: &AtomicBool,
        observe: &mut dyn FnMut(Event),
    ) -> Result<Option<LatentCache>> {
        let fingerprint = CacheFingerprint::new(self.augmentations, &self.encoder.encoder_weights());
        if !path.exists() {
            let observe = RefCell::new(observe);
            let progress = |done, of| (observe.borrow_mut())(Event::Caching { done, of });
            if !self.write(path, &fingerprint, stop, &progress)? {
                return Ok(None);
            }
        }
        LatentCache::open(path, self.augmentations.clone(), &fingerprint).map(Some)
    }

    /// Writes the file to a temporary name and renames it. Returns `false`, and leaves no file, when `stop` is set.
    /// `observe` takes the number of encoded images and the total.
    fn write(
        &self,
        path: &Path,
        fingerprint: &CacheFingerprint,
        stop: &AtomicBool,
        observe: &dyn Fn(usize, usize),
    ) -> Result<bool> {
        let (sets, count) = (&self.augmentations.sets, self.augmentations.sets[0].len());
        let first = (0..count).find_map(|index| sets[0].get(index, 0).ok());
        let first =
            first.ok_or_else(|| Error::data(sets[0].name(), "expected a readable image, got none"))?;
        let pixels = first.size;
        let shape = self.encoder.latent_moments(&collate(vec![first])?)?.size();
        let mut chunks = Vec::new();
        for (view, set) in sets.iter().enumerate() {
            for start in (0..count).step_by(self.batch) {
                let mut shape = shape.clone();
                shape[0] = self.batch.min(count - start) as i64;
                let info = TensorInfo { shape: shape.clone(), kind: Kind::Float };
                let make = move || {
                    if stop.load(Ordering::Relaxed) {
                        return Err(Error::Stopped);
                    }
                    let moments = self.chunk(&**set, start, &shape, pixels);
                    observe(view * count + start + shape[0] as usize, sets.len() * count);
                    moments
                };
                // Zero-padded, so that names sort in file order.
                chunks.push(Streamed { name: format!("{view}/{start:012}"), info, make: Box::new(make) });
            }
        }
        match save_streamed(path, &chunks, &fingerprint.metadata()) {
            Err(_) if stop.load(Ordering::Relaxed) => Ok(false),
            done => done.map(|()| true),
        }
    }

    /// Encodes `shape[0]` images from `start` into moments; NaN for skipped images.
    fn chunk(&self, set: &dyn Dataset, start: usize, shape: &[i64], pixels: [usize; 3]) -> Result<Tensor> {
        let (mut examples, mut places) = (Vec::new(), Vec::new());
        for place in 0..shape[0] {
            match set.get(start + place as usize, 0) {
                Ok(example) if example.size == pixels => {
                    examples.push(example);
                    places.push(place);
                }
                Ok(Example { name, size: [_, h, w], .. }) => {
                    let [_, h0, w0] = pixels;
                    let sizes = format!("expected {w0}x{h0}, the size of the first image, got {w}x{h}");
                    return Err(Error::data(
                        name,
                        format!("{sizes}; try a size and a crop in the transform"),
                    ));
                }
                Err(error) if self.strict => return Err(error),
                Err(_) => {}
            }
        }
        let moments = Tensor::full(shape, f64::NAN, (Kind::Float, Device::Cpu));
        if let Some(last) = examples.last().cloned() {
            examples.resize(self.batch, last);
            let batch = collate(examples)?;
            let found = self.encoder.latent_moments(&batch)?.narrow(0, 0, places.len() as i64);
            let found = found.to_device(Device::Cpu).to_kind(Kind::Float);
            let _ = moments.shallow_clone().index_copy_(0, &Tensor::from_slice(&places), &found);
        }
        Ok(moments)
    }
}
