//! The dataset of stored images: folders, archives, WebDataset shards.

use std::path::Path;

use image::GrayImage;
use ldm_core::{Error, Result};
use ldm_retrieval::NeighborTable;
use rayon::prelude::*;

use crate::dataset::{Dataset, Peek, fingerprint};
use crate::example::{Example, to_chw};
use crate::image::decode::{decode, decode_alpha, dimensions};
use crate::image::placement::Placement;
use crate::image::transform::Transform;
use crate::labels::boxes::placed;
use crate::labels::caption_file::CaptionSource;
use crate::labels::label_maps::{Labels, mask};
use crate::labels::sidecar::{captions_of_json, captions_of_text};
use crate::rng::Rng;
use crate::source::data_paths::DataPaths;
use crate::source::paired_files::FileIndex;
use crate::stored::images_config::ImagesConfig;
use crate::stored::listing::{Item, Listing};
use crate::task::{CheckedTask, TaskConfig};

/// The dataset of stored images.
#[derive(Debug)]
pub struct StoredImages {
    config: ImagesConfig,
    transform: Transform,
    labels: Option<Labels>,
    task: Option<CheckedTask>,
    listing: Listing,
    neighbors: Option<NeighborTable>,
    weights: Option<Vec<f64>>,
    name: String,
    passed_over: Vec<String>,
}

impl StoredImages {
    /// Lists the images; relative paths are looked up by [`DataPaths`] of the folder `base`. No image is read:
    /// [`Dataset::get`] reports unreadable ones.
    ///
    /// # Errors
    /// [`Error::Io`] and [`Error::Format`] for files that cannot be listed; [`Error::Data`] when no image is left, when
    /// a list names an absent image, and when only some images have a class, a caption, a label map or a mask;
    /// [`Error::Invalid`] for keys that contradict each other.
    pub fn open(config: ImagesConfig, base: &Path) -> Result<Self> {
        let transform = Transform::new(config.transform.clone())?;
        let paths = DataPaths::new(base);
        let labels = config.label_maps.as_ref().map(|maps| Labels::open(maps, &paths)).transpose()?;
        if config.task == Some(TaskConfig::Semantic) && labels.is_none() {
            return Err(Error::invalid("label_maps: expected with task: semantic, got none"));
        }
        let task =
            config.task.clone().map(|task| CheckedTask::new(task, config.transform.size)).transpose()?;
        if config.balance.is_some() && config.shards_by_rank {
            return Err(Error::invalid("balance: expected shards_by_rank: false, got true"));
        }
        if config.alpha && task.is_some() {
            return Err(Error::invalid(
                "alpha: expected false with a task, whose conditions are RGB, got true",
            ));
        }
        let listing = Listing::open(&config, &paths)?;
        let neighbors = match &config.neighbors {
            Some(neighbors) => Some(neighbors.open(&paths, &listing)?),
            None => None,
        };
        let weights = config.balance.as_ref().map(|balance| balance.weights(&paths, &listing)).transpose()?;
        let name = config.path.join(", ");
        let passed_over = listing.stores.iter().flat_map(|store| store.passed_over.clone()).collect();
        Ok(Self { config, transform, labels, task, listing, neighbors, weights, name, passed_over })
    }

    /// Reads the captions of an image; empty for a dataset without captions.
    fn captions(&self, item: &Item) -> Result<Vec<String>> {
        let Some(caption) = item.caption else { return Ok(item.texts.clone()) };
        let store = &self.listing.stores[item.store];
        let file = &store.files[caption];
        let bytes = store.read_sidecar(file)?;
        let read = if file.has_extension("json") { captions_of_json } else { captions_of_text };
        let captions = read(&bytes).map_err(|message| Error::data(store.path(file), message))?;
        if captions.is_empty() {
            return Err(Error::data(store.path(file), "expected a caption, got none; try captions: none"));
        }
        Ok(captions)
    }

    /// Channels of an image.
    fn channels(&self) -> usize {
        if self.config.alpha { 4 } else { 3 }
    }

    /// The embeddings of an image's neighbors.
    fn neighbors(&self, item: &Item) -> Option<Vec<Vec<f32>>> {
        let table = self.neighbors.as_ref()?;
        let found = table.neighbors(&self.listing.image(item).name)?;
        Some(found.map(|index| table.database().embedding(index).collect()).collect())
    }

    /// The fingerprint without neighbors. It has no paths: a dataset keeps it when it is moved.
    fn fingerprint_of_images(&self) -> String {
        let Self { config, .. } = self;
        let old = (&config.transform, config.classes, captions_key(config), &self.listing.classes);
        let entries = self.listing.items.iter().map(|item| {
            let image = self.listing.image(item);
            (image.name.as_str(), image.size)
        });
        if config.boxes.is_none() && config.label_maps.is_none() && config.task.is_none() {
            let version = if config.alpha { "images 1 with alpha" } else { "images 1" };
            return fingerprint(version, &old, entries);
        }
        let boxes = config.boxes.as_ref().map(|boxes| {
            let all = self.listing.items.iter().map(|item| item.boxes.len()).sum::<usize>();
            (boxes.min_object_area, boxes.encode_crop, all)
        });
        let labels = config.label_maps.as_ref().map(|maps| (maps.n_labels, maps.shift));
        let version = if config.alpha { "images 2 with alpha" } else { "images 2" };
        fingerprint(version, &(old, boxes, labels, &config.task), entries)
    }

    fn bytes(&self, item: &Item) -> Result<Vec<u8>> {
        self.listing.stores[item.store].read(self.listing.image(item))
    }

    fn bad(&self, item: &Item) -> impl FnOnce(String) -> Error {
        let path = self.listing.stores[item.store].path(self.listing.image(item));
        move |message| Error::data(path, message)
    }

    /// Reads a label map or a mask of an image of `size`, and places it as the image.
    fn read_map(
        &self,
        place: FileIndex,
        size: (u32, u32),
        placement: &Placement,
        read: impl Fn(&[u8]) -> std::result::Result<GrayImage, String>,
    ) -> Result<Vec<u8>> {
        let store = &self.listing.stores[place.0];
        let file = &store.files[place.1];
        let bad = |message: String| -> Error { Error::data(store.path(file), message) };
        let map = read(&store.read(file)?).map_err(bad)?;
        if map.dimensions() != size {
            let ((w0, h0), (w1, h1)) = (size, map.dimensions());
            return Err(bad(format!("expected {w0}x{h0} as its image, got {w1}x{h1}")));
        }
        Ok(placement.labels(map).into_raw())
    }
}

impl Dataset for StoredImages {
    fn len(&self) -> usize {
        self.listing.items.len()
    }

    fn get(&self, index: usize, seed: u64) -> Result<Example> {
        let item = &self.listing.items[index];
        let mut rng = Rng::of(&[seed, index as u64]);
        let bytes = self.bytes(item)?;
        let image = decode(&bytes).map_err(self.bad(item))?;
        let size = image.dimensions();
        let placement = self.transform.place([size.0, size.1], &mut rng).map_err(self.bad(item))?;
        let image = placement.image(image);
        let mut planes = to_chw(image.as_raw());
        if self.config.alpha {
            let alpha = placement.image(decode_alpha(&bytes).map_err(self.bad(item))?);
            let pixels = planes.len() / 3;
            planes.extend(to_chw(alpha.as_raw()).into_iter().take(pixels));
        }
        let captions = self.captions(item)?;
        let caption = (!captions.is_empty()).then(|| rng.pick(&captions).clone());
        let encode_crop = self.config.boxes.as_ref().is_some_and(|boxes| boxes.encode_crop);
        let label_map = match (&self.labels, item.label_map) {
            (Some(labels), Some(place)) => {
                Some(self.read_map(place, size, &placement, |bytes| labels.read(bytes))?)
            }
            _ => None,
        };
        let mask = item.mask.map(|place| self.read_map(place, size, &placement, mask)).transpose()?;
        let boxes = placed(&item.boxes, &placement, encode_crop, &mut rng);
        let label_count = self.labels.as_ref().map_or(0, |labels| labels.count);
        let condition = self.task.as_ref().map(|task| task.make(&image, mask, label_count, &mut rng));
        Ok(Example {
            image: planes,
            size: [self.channels(), image.height() as usize, image.width() as usize],
            class: item.class,
            caption,
            boxes,
            encode_crop,
            crop: placement.shown(),
            label_map,
            condition: condition.transpose().map_err(self.bad(item))?,
            latent: None,
            neighbors: self.neighbors(item),
            name: self.listing.image(item).name.clone(),
        })
    }

    fn without_image(&self, index: usize, seed: u64) -> Result<Example> {
        if self.config.boxes.is_some() || self.labels.is_some() || self.task.is_some() {
            return Ok(Example { image: Vec::new(), ..self.get(index, seed)? });
        }
        let item = &self.listing.items[index];
        // In the order of `get`, so that the caption is that of the image.
        let mut rng = Rng::of(&[seed, index as u64]);
        let [width, height] = dimensions(&self.bytes(item)?).map_err(self.bad(item))?;
        let placement = self.transform.place([width, height], &mut rng).map_err(self.bad(item))?;
        let captions = self.captions(item)?;
        Ok(Example {
            image: Vec::new(),
            size: [self.channels(), 0, 0],
            class: item.class,
            caption: (!captions.is_empty()).then(|| rng.pick(&captions).clone()),
            boxes: Vec::new(),
            encode_crop: false,
            crop: placement.shown(),
            label_map: None,
            condition: None,
            latent: None,
            neighbors: self.neighbors(item),
            name: self.listing.image(item).name.clone(),
        })
    }

    fn peek(&self, index: usize) -> Result<Peek> {
        let item = &self.listing.items[index];
        Ok(Peek {
            name: self.listing.image(item).name.clone(),
            size: dimensions(&self.bytes(item)?).map_err(self.bad(item))?,
            class: item.class,
            caption: self.captions(item)?.into_iter().next(),
        })
    }

    fn classes(&self) -> &[String] {
        &self.listing.classes
    }

    fn name(&self) -> String {
        self.name.clone()
    }

    fn fingerprint(&self) -> String {
        let images = self.fingerprint_of_images();
        match &self.neighbors {
            Some(table) => {
                let database = (table.database().fingerprint(), table.k());
                fingerprint("images 1 with neighbors", &database, [(images.as_str(), 0)])
            }
            None => images,
        }
    }

    fn box_classes(&self) -> &[String] {
        &self.listing.box_classes
    }

    fn label_classes(&self) -> &[String] {
        self.labels.as_ref().map_or(&[], |labels| &labels.names)
    }

    fn check_labels(&self, count: i64) -> Result<usize> {
        let Some(labels) = &self.labels else { return Ok(0) };
        let places: Vec<FileIndex> = self.listing.items.iter().filter_map(|item| item.label_map).collect();
        let wrong = places.par_iter().find_map_first(|place| {
            let store = &self.listing.stores[place.0];
            let file = &store.files[place.1];
            let message = labels.check(&store.read(file).ok()?, count).err()?;
            Some(Error::data(store.path(file), message))
        });
        wrong.map_or(Ok(places.len()), Err)
    }

    fn passed_over(&self) -> &[String] {
        &self.passed_over
    }

    fn shards_by_rank(&self) -> Option<Vec<usize>> {
        self.config.shards_by_rank.then(|| self.listing.shards())
    }

    fn weights(&self) -> Option<&[f64]> {
        self.weights.as_deref()
    }
}

/// Key of the captions in a fingerprint, without the path of a file.
fn captions_key(config: &ImagesConfig) -> &str {
    match &config.captions {
        CaptionSource::Auto => "auto",
        CaptionSource::None => "none",
        CaptionSource::Text(text) => text,
        CaptionSource::File(_) => "file",
    }
}
