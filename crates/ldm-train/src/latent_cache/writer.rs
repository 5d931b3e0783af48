//! Writing a latent cache.

use std::cell::RefCell;
use std::collections::VecDeque;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};

use ldm_checkpoint::{Streamed, TensorInfo, save_streamed};
use ldm_core::{Error, Result};
use ldm_data::collate;
use ldm_libtorch::Download;
use tch::{Device, Kind, Tensor};

use super::decode_ahead::DecodeAhead;
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
    /// Threads that decode images; with 0 the calling thread decodes them.
    pub(crate) workers: usize,
    /// The device of the encoder.
    pub(crate) device: Device,
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
        let mut jobs = Vec::new();
        for view in 0..sets.len() {
            for start in (0..count).step_by(self.batch) {
                jobs.push(ImageChunk { view, start, count: self.batch.min(count - start) });
            }
        }
        let encoding = RefCell::new(EncodedChunks::new(self, &jobs, [shape[1], shape[2], shape[3]], pixels));
        let mut chunks = Vec::new();
        for &ImageChunk { view, start, count: images } in &jobs {
            let mut shape = shape.clone();
            shape[0] = images as i64;
            let encoding = &encoding;
            let make = move || {
                if stop.load(Ordering::Relaxed) {
                    return Err(Error::Stopped);
                }
                let moments = encoding.borrow_mut().next()?;
                observe(view * count + start + images, sets.len() * count);
                Ok(moments)
            };
            // Zero-padded, so that names sort in file order.
            let info = TensorInfo { shape, kind: Kind::Float };
            chunks.push(Streamed { name: format!("{view}/{start:012}"), info, make: Box::new(make) });
        }
        match save_streamed(path, &chunks, &fingerprint.metadata()) {
            Err(_) if stop.load(Ordering::Relaxed) => Ok(false),
            done => done.map(|()| true),
        }
    }
}

/// The images of a chunk: `count` of variant `view`, from `start` on.
#[derive(Clone, Copy)]
struct ImageChunk {
    view: usize,
    start: usize,
    count: usize,
}

/// The places of the readable images in a chunk, and their moments.
type ReadableMoments = (Vec<i64>, Download);

/// Chunks being encoded, in order. Each is copied back while the next one is encoded and those after it are decoded, so
/// that neither a device nor the decoding threads wait.
struct EncodedChunks<'a> {
    writer: &'a CacheWriter<'a>,
    jobs: std::slice::Iter<'a, ImageChunk>,
    /// `[C, h, w]` of an image's moments.
    latent: [i64; 3],
    /// `[C, H, W]` of an image.
    pixels: [usize; 3],
    /// The variant being decoded.
    images: Option<(usize, DecodeAhead)>,
    /// Chunks whose encoding was started, and their moments of the readable images.
    started: VecDeque<(ImageChunk, Option<ReadableMoments>)>,
}

impl<'a> EncodedChunks<'a> {
    fn new(
        writer: &'a CacheWriter<'a>,
        jobs: &'a [ImageChunk],
        latent: [i64; 3],
        pixels: [usize; 3],
    ) -> Self {
        Self { writer, jobs: jobs.iter(), latent, pixels, images: None, started: VecDeque::new() }
    }

    /// Returns the moments of the next chunk, `[count, C, h, w]` f32 on the CPU; NaN for skipped images.
    fn next(&mut self) -> Result<Tensor> {
        while self.started.len() < 2
            && let Some(&job) = self.jobs.next()
        {
            let found = self.start(job)?;
            self.started.push_back((job, found));
        }
        let (job, found) = self.started.pop_front().expect("a job for each chunk of the file");
        let [c, h, w] = self.latent;
        let mut moments = Tensor::full([job.count as i64, c, h, w], f64::NAN, (Kind::Float, Device::Cpu));
        if let Some((places, found)) = found {
            let _ = moments.index_copy_(0, &Tensor::from_slice(&places), &found.wait());
        }
        Ok(moments)
    }

    /// Decodes a chunk and starts its encoder.
    fn start(&mut self, ImageChunk { view, start, count }: ImageChunk) -> Result<Option<ReadableMoments>> {
        let CacheWriter { augmentations, batch, strict, workers, device, encoder } = self.writer;
        let images = match self.images.take_if(|(decoded, _)| *decoded == view) {
            Some((_, images)) => images,
            None => DecodeAhead::start(&augmentations.sets[view], *batch, *strict, *workers, *device)?,
        };
        let (_, images) = self.images.insert((view, images));
        let Some((found, places)) = images.take(start / batch, count)? else { return Ok(None) };
        let size = found.images.size();
        let [_, h0, w0] = self.pixels;
        if size[2..] != [h0 as i64, w0 as i64] {
            let sizes =
                format!("expected {w0}x{h0}, the size of the first image, got {}x{}", size[3], size[2]);
            return Err(Error::data(
                &found.names[0],
                format!("{sizes}; try a size and a crop in the transform"),
            ));
        }
        let moments = encoder.latent_moments(&found.padded(*batch))?.narrow(0, 0, places.len() as i64);
        Ok(Some((places, Download::start(&moments.to_kind(Kind::Float)))))
    }
}
