//! What an encoder says of every image, kept in a file.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use ldm_checkpoint::{Checkpoint, Streamed, TensorInfo, save_streamed};
use ldm_core::{Error, Result};
use ldm_data::{Batch, Dataset, Example, Latent, Peek, Rng, collate};
use ldm_libtorch::{Mapped, map_file};
use sha2::{Digest, Sha256};
use tch::{Device, Kind, Tensor};

use crate::config::RunConfig;
use crate::latent_cache::CacheLatents;
use crate::latent_cache::Views;
use crate::objective::Objective;
use crate::run::event::Event;

/// What the file holds may change with it.
const FORMAT: &str = "ldm latents 1";
const WIDTH: usize = size_of::<f32>();

/// What a cache was made of. A file that says otherwise is refused.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MadeOf {
    /// The fingerprints of the views.
    images: String,
    /// SHA-256 of the first stage's weights.
    first_stage: String,
}

impl MadeOf {
    /// What a cache of `views` is made of, by the first stage of a model of these weights, named and sorted.
    pub fn new(views: &Views, weights: &[(String, Tensor)]) -> Self {
        let images: Vec<String> = views.sets.iter().map(|set| set.fingerprint()).collect();
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

    fn metadata(&self) -> BTreeMap<String, String> {
        [("format", FORMAT), ("images", &self.images), ("first_stage", &self.first_stage)]
            .map(|(key, value)| (key.to_owned(), value.to_owned()))
            .into()
    }

    /// What is wrong with a cache that says `metadata` of itself.
    fn differs(&self, metadata: &BTreeMap<String, String>) -> Option<&'static str> {
        let ours = self.metadata();
        let same = |key: &str| metadata.get(key) == ours.get(key);
        match (same("format"), same("images"), same("first_stage")) {
            (false, ..) => Some("is no cache of latents of this version"),
            (_, false, _) => Some("was made of other images than data.params.train has now"),
            (_, _, false) => Some("was made by another first stage than the model's"),
            _ => None,
        }
    }
}

/// A set of latents in the place of images: all else is the set's own.
///
/// What is kept is the whole posterior, so that a latent is drawn in every step as ever; for VQ the point before it is
/// quantized. Of images that are mirrored by chance both views are kept. Nothing else is by chance: see [`Views`].
pub struct LatentCache {
    views: Views,
    path: PathBuf,
    bytes: Mapped,
    /// Where the first image's values begin.
    start: usize,
    /// `[C, h, w]` of what is kept of an image.
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
    /// [`Error::Format`] when it was made of something else, or is damaged.
    pub fn open(path: &Path, views: Views, of: &MadeOf) -> Result<Self> {
        let checkpoint = Checkpoint::open(path)?;
        if let Some(why) = of.differs(checkpoint.metadata()) {
            return Err(Error::format(path, format!("{why}: remove it, and it is made anew")));
        }
        let damaged = || Error::format(path, "damaged: remove it, and it is made anew");
        let names: Vec<&str> = checkpoint.names().collect();
        let shape = names.first().and_then(|name| checkpoint.info(name)).ok_or_else(damaged)?.shape;
        let [_, c, h, w] = shape[..] else { return Err(damaged()) };
        let size = [c, h, w].map(|side| side as usize);
        let pixels = (0..views.sets[0].len()).find_map(|index| views.sets[0].get(index, 0).ok());
        let pixels = pixels.map_or([3, 0, 0], |example| example.size);
        let bytes = map_file(path).map_err(Error::io(path))?;
        let head = bytes.first_chunk().ok_or_else(damaged)?;
        let start = size_of::<u64>() + u64::from_le_bytes(*head) as usize;
        let records = views.sets.len() * views.sets[0].len();
        if bytes.len() != start + records * size.iter().product::<usize>() * WIDTH {
            return Err(damaged());
        }
        Ok(Self { views, path: path.to_path_buf(), bytes, start, size, pixels })
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

/// How a cache is made.
pub(crate) struct Making<'a> {
    pub(crate) views: &'a Views,
    pub(crate) of: &'a MadeOf,
    /// Images encoded reduce_metrics: as many as in a step, and as many in the last chunk too, since what an encoder says
    /// of an image depends in its last bits on how many others there are.
    pub(crate) batch: usize,
    /// Whether an image that cannot be read is an error; else it is left out, and named when it is asked for.
    pub(crate) strict: bool,
    /// What is to be kept of images `[B, 3, H, W]`: `[B, C, h, w]`.
    pub(crate) encode: &'a dyn Fn(&Tensor) -> Tensor,
}

impl Making<'_> {
    /// Makes the file at `path`, aside and then renamed. `observe` hears how many images of how many are encoded.
    /// Gives `false`, and leaves no file, when `stop` is set.
    ///
    /// # Errors
    /// [`Error::Io`] when the file cannot be written; when images differ in size, or none can be read.
    pub(crate) fn write(
        &self,
        path: &Path,
        stop: &AtomicBool,
        observe: &dyn Fn(usize, usize),
    ) -> Result<bool> {
        let (sets, count) = (&self.views.sets, self.views.sets[0].len());
        let first = (0..count).find_map(|index| sets[0].get(index, 0).ok());
        let first = first.ok_or_else(|| Error::data(sets[0].name(), "no image can be read"))?;
        let pixels = first.size;
        let shape = (self.encode)(&collate(vec![first])?.images).size();
        let mut chunks = Vec::new();
        for view in 0..sets.len() {
            for start in (0..count).step_by(self.batch) {
                let mut shape = shape.clone();
                shape[0] = self.batch.min(count - start) as i64;
                let info = TensorInfo { shape: shape.clone(), kind: Kind::Float };
                let make = move || {
                    if stop.load(Ordering::Relaxed) {
                        return Err(Error::invalid("stopped"));
                    }
                    let made = self.chunk(&*sets[view], start, &shape, pixels);
                    observe(view * count + start + shape[0] as usize, sets.len() * count);
                    made
                };
                // Named so that they are sorted as they come.
                chunks.push(Streamed { name: format!("{view}/{start:012}"), info, make: Box::new(make) });
            }
        }
        match save_streamed(path, &chunks, &self.of.metadata()) {
            Err(_) if stop.load(Ordering::Relaxed) => Ok(false),
            done => done.map(|()| true),
        }
    }

    /// What is kept of `shape[0]` images from `start`; one that is left out is no number.
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
                    let why = format!("is {w}x{h} where the first is {w0}x{h0}");
                    return Err(Error::data(name, format!("{why}; set a size and a crop in the transform")));
                }
                Err(error) if self.strict => return Err(error),
                Err(_) => {}
            }
        }
        let kept = Tensor::full(shape, f64::NAN, (Kind::Float, Device::Cpu));
        if let Some(last) = examples.last().cloned() {
            examples.resize(self.batch, last);
            let found = (self.encode)(&collate(examples)?.images).narrow(0, 0, places.len() as i64);
            let found = found.to_device(Device::Cpu).to_kind(Kind::Float);
            let _ = kept.shallow_clone().index_copy_(0, &Tensor::from_slice(&places), &found);
        }
        Ok(kept)
    }
}

impl Dataset for LatentCache {
    fn len(&self) -> usize {
        self.views.sets[0].len()
    }

    fn get(&self, index: usize, seed: u64) -> Result<Example> {
        let flipped = self.views.sets.len() > 1 && Rng::of(&[seed, index as u64, 2]).unit() < self.views.flip;
        let view = usize::from(flipped);
        let known = self.views.sets[view].without_image(index, seed)?;
        let latent = self.latent(view, index);
        let latent =
            latent.ok_or_else(|| Error::data(&known.name, "could not be read when the latents were made"))?;
        Ok(Example { size: self.pixels, latent: Some(latent), ..known })
    }

    fn without_image(&self, index: usize, seed: u64) -> Result<Example> {
        self.get(index, seed)
    }

    fn peek(&self, index: usize) -> Result<Peek> {
        self.views.sets[0].peek(index)
    }

    fn classes(&self) -> &[String] {
        self.views.sets[0].classes()
    }

    fn box_classes(&self) -> &[String] {
        self.views.sets[0].box_classes()
    }

    fn label_classes(&self) -> &[String] {
        self.views.sets[0].label_classes()
    }

    fn shards_by_rank(&self) -> Option<Vec<usize>> {
        self.views.sets[0].shards_by_rank()
    }

    fn name(&self) -> String {
        self.views.sets[0].name()
    }

    fn fingerprint(&self) -> String {
        self.views.sets[0].fingerprint()
    }
}

/// Whether a run can do with latents in the images' place, where its config asks for it; `batch` are some of them.
pub(crate) fn check(config: &RunConfig, objective: &dyn Objective, batch: &Batch) -> Result<()> {
    if config.train.cache_latents == CacheLatents::No {
        return Ok(());
    }
    Views::of(config)?;
    if objective.moments(&batch.images).is_none() {
        return Err(Error::invalid(
            "train.cache_latents: this model is trained on the images themselves, leave it out",
        ));
    }
    Ok(())
}

/// The cache at `path`, made first where nothing is; none when `stop` was set meanwhile.
pub(crate) fn open_or_make(
    path: &Path,
    config: &RunConfig,
    objective: &dyn Objective,
    stop: &AtomicBool,
    observe: &mut dyn FnMut(Event),
) -> Result<Option<Arc<dyn Dataset>>> {
    let views = Views::of(config)?;
    let of = MadeOf::new(&views, &objective.encoder());
    if !path.exists() {
        let encode = |images: &Tensor| objective.moments(images).expect("checked when the run was made");
        let observe = RefCell::new(observe);
        let seen = |done, of| (observe.borrow_mut())(Event::Caching { done, of });
        let (batch, strict) = (config.data.batch_size, config.data.strict);
        let making = Making { views: &views, of: &of, batch, strict, encode: &encode };
        if !making.write(path, stop, &seen)? {
            return Ok(None);
        }
    }
    Ok(Some(Arc::new(LatentCache::open(path, views, &of)?)))
}
