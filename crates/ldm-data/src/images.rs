//! The image set of stored pictures: folders, archives, WebDataset shards.

use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use ldm_core::{Error, Result};

use crate::dataset::{Dataset, Peek, fingerprint};
use crate::decode::{decode, dimensions};
use crate::example::{Example, to_chw};
use crate::listing::{Item, Listing};
use crate::rng::Rng;
use crate::sidecar::{captions_of_json, captions_of_text};
use crate::transform::{Crop, Transform, TransformConfig};

/// Where pictures lie, which of them count, and how they are prepared.
///
/// `path` is a folder, a `.tar`, a `.tar.gz` (all three of one layout), a pattern of shards `a-{000..003}.tar`, or a
/// list of these. A picture is a file that ends in `.png`, `.jpg`, `.jpeg`, `.webp`, `.bmp`, `.gif`, `.tif` or
/// `.tiff`; what it is, its content says. Beside `key.png` may stand `key.txt` (a caption a line), `key.cls` (a class
/// by number or name) and `key.json` (`caption`, `class`). Relative paths are relative to the config's folder.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ImagesConfig {
    /// Where they lie.
    #[serde(deserialize_with = "crate::config::one_or_many")]
    pub path: Vec<String>,
    /// A text file of names, one a line, with or without their endings: only these count.
    #[serde(default)]
    pub split: Option<PathBuf>,
    /// A text file of names: these do not count.
    #[serde(default)]
    pub exclude: Option<PathBuf>,
    /// Where classes come from. They are numbered before `split` and `exclude`, so that all splits agree.
    #[serde(default)]
    pub classes: ClassSource,
    /// Where captions come from.
    #[serde(default)]
    pub captions: CaptionSource,
    /// How pictures are prepared.
    #[serde(default)]
    pub transform: TransformConfig,
}

/// Where classes come from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ClassSource {
    /// From `.cls` or `.json` files if there are any with a class, else from folders if there are any.
    #[default]
    Auto,
    /// From the folders pictures lie in.
    Folders,
    /// From `.cls` or `.json` files beside the pictures.
    Files,
    /// There are none.
    None,
}

/// Where captions come from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum CaptionSource {
    /// From `.txt` or `.json` files beside the pictures if there are any.
    #[default]
    Auto,
    /// There are none.
    None,
}

impl ImagesConfig {
    /// Everything at `path`, prepared by `transform`.
    pub fn new(path: impl Into<String>, transform: TransformConfig) -> Self {
        Self {
            path: vec![path.into()],
            split: None,
            exclude: None,
            classes: ClassSource::default(),
            captions: CaptionSource::default(),
            transform,
        }
    }
}

/// The image set of stored pictures.
#[derive(Debug)]
pub struct Images {
    config: ImagesConfig,
    transform: Transform,
    listing: Listing,
    name: String,
}

impl Images {
    /// Lists the pictures; `base` is the folder that relative paths are relative to. No picture is read: what is
    /// wrong with one shows in [`Dataset::get`].
    ///
    /// # Errors
    /// [`Error::Io`], [`Error::Format`] for what cannot be listed; [`Error::Data`] when no picture is left, when a
    /// list names a picture that is not there, and when only some pictures have a class or a caption.
    pub fn open(config: ImagesConfig, base: &Path) -> Result<Self> {
        let transform = Transform::new(config.transform.clone())?;
        let listing = Listing::open(&config, base)?;
        let name = config.path.join(", ");
        Ok(Self { config, transform, listing, name })
    }

    /// The captions of a picture; empty when the set has none.
    fn captions(&self, item: &Item) -> Result<Vec<String>> {
        let Some(caption) = item.caption else { return Ok(Vec::new()) };
        let store = &self.listing.stores[item.store];
        let file = &store.files[caption];
        let bytes = store.read(file)?;
        let read = if file.ending() == "json" { captions_of_json } else { captions_of_text };
        let captions = read(&bytes).map_err(|message| Error::data(store.path(file), message))?;
        if captions.is_empty() {
            return Err(Error::data(
                store.path(file),
                "has no caption; set captions: none if none is wanted",
            ));
        }
        Ok(captions)
    }

    fn bytes(&self, item: &Item) -> Result<Vec<u8>> {
        self.listing.stores[item.store].read(self.listing.picture(item))
    }

    fn bad(&self, item: &Item) -> impl FnOnce(String) -> Error {
        let path = self.listing.stores[item.store].path(self.listing.picture(item));
        move |message| Error::data(path, message)
    }
}

impl Dataset for Images {
    fn len(&self) -> usize {
        self.listing.items.len()
    }

    fn get(&self, index: usize, seed: u64) -> Result<Example> {
        let item = &self.listing.items[index];
        let mut rng = Rng::of(&[seed, index as u64]);
        let picture = decode(&self.bytes(item)?).map_err(self.bad(item))?;
        let picture = self.transform.apply(picture, &mut rng).map_err(self.bad(item))?;
        let captions = self.captions(item)?;
        Ok(Example {
            image: to_chw(picture.as_raw()),
            size: [3, picture.height() as usize, picture.width() as usize],
            class: item.class,
            caption: (!captions.is_empty()).then(|| rng.pick(&captions).clone()),
            boxes: Vec::new(),
            label_map: None,
            latent: None,
            name: self.listing.picture(item).name.clone(),
        })
    }

    fn without_picture(&self, index: usize, seed: u64) -> Result<Example> {
        let crop = self.config.transform.crop;
        if self.config.transform.size.is_none() || matches!(crop, Crop::Random | Crop::RandomSquare) {
            return Ok(Example { image: Vec::new(), ..self.get(index, seed)? });
        }
        let item = &self.listing.items[index];
        let mut rng = Rng::of(&[seed, index as u64]);
        // What the transform draws, so that the caption is the one that comes with the picture.
        let _ = rng.unit();
        let captions = self.captions(item)?;
        Ok(Example {
            image: Vec::new(),
            size: [3, 0, 0],
            class: item.class,
            caption: (!captions.is_empty()).then(|| rng.pick(&captions).clone()),
            boxes: Vec::new(),
            label_map: None,
            latent: None,
            name: self.listing.picture(item).name.clone(),
        })
    }

    fn peek(&self, index: usize) -> Result<Peek> {
        let item = &self.listing.items[index];
        Ok(Peek {
            name: self.listing.picture(item).name.clone(),
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
        // Not the paths: a set keeps its fingerprint when it is moved.
        let config =
            (&self.config.transform, self.config.classes, self.config.captions, &self.listing.classes);
        let entries = self.listing.items.iter().map(|item| {
            let picture = self.listing.picture(item);
            (picture.name.as_str(), picture.size)
        });
        fingerprint("images 1", &config, entries)
    }
}
