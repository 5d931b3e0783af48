//! Listing of stored images and the files next to them.

use std::borrow::Cow;
use std::collections::{HashMap, HashSet};
use std::path::{Path, PathBuf};

use ldm_core::{Error, LayoutBox, Result, text};

use crate::image::decode::IMAGE_EXTENSIONS;
use crate::labels::caption_file::CaptionSource;
use crate::labels::classes::{self, Classes};
use crate::labels::imagenet::LEFT_OUT;
use crate::labels::sidecar::{Label, captions_of_json, label_of_json, label_of_text};
use crate::source::data_paths::DataPaths;
use crate::source::names::{ImageNames, composed};
use crate::source::paired_files::FileIndex;
use crate::source::store::{Store, Stored};
use crate::stored::images_config::{ClassSource, ImagesConfig};

/// The images of a dataset, in order.
#[derive(Debug)]
pub(crate) struct Listing {
    pub(crate) stores: Vec<Store>,
    pub(crate) items: Vec<Item>,
    pub(crate) classes: Vec<String>,
    /// Names of the classes of boxes.
    pub(crate) box_classes: Vec<String>,
    /// Number of stores with images, which come first.
    pub(crate) shards: usize,
}

/// One image and its labels; files are indices in its store.
#[derive(Debug)]
pub(crate) struct Item {
    pub(crate) store: usize,
    pub(crate) image: usize,
    pub(crate) caption: Option<usize>,
    /// Captions of a caption file.
    pub(crate) texts: Vec<String>,
    pub(crate) class: Option<i64>,
    pub(crate) boxes: Vec<LayoutBox>,
    pub(crate) label_map: Option<FileIndex>,
    pub(crate) mask: Option<FileIndex>,
    label: Option<usize>,
}

impl Listing {
    pub(crate) fn open(config: &ImagesConfig, paths: &DataPaths) -> Result<Self> {
        let what = config.path.join(", ");
        let mut stores = Vec::new();
        for pattern in &config.path {
            for path in paths.expand(pattern)? {
                stores.push(Store::open(&path)?);
            }
        }
        let items = stores.iter().enumerate().flat_map(|(number, store)| items(number, store)).collect();
        let shards = stores.len();
        let mut listing = Self { stores, items, classes: Vec::new(), box_classes: Vec::new(), shards };
        listing.find_paired_files(config, paths)?;
        if listing.items.is_empty() {
            let passed_over = listing.stores.iter().find_map(|store| store.passed_over.first());
            let also = passed_over.map_or_else(String::new, |first| format!(", and passed over {first}"));
            let endings = IMAGE_EXTENSIONS.join(", ");
            return Err(Error::data(
                what,
                format!("expected images, got no file that ends in {endings}{also}"),
            ));
        }
        let Classes { names, of } = match &config.imagenet {
            Some(imagenet) => imagenet.apply(listing.classify(ClassSource::Folders, &what)?, paths)?,
            None => listing.classify(config.classes, &what)?,
        };
        listing.classes = names;
        listing.items.iter_mut().zip(of).for_each(|(item, class)| item.class = class);
        listing.read_boxes(config, paths)?;
        listing.select(config, paths)?;
        if config.imagenet.is_some() {
            // After the lists, which name images of all classes.
            let Self { stores, items, .. } = &mut listing;
            let is_left_out = |item: &Item| stores[item.store].files[item.image].name.ends_with(LEFT_OUT);
            items.retain(|item| item.class.is_some() && !is_left_out(item));
        }
        if listing.items.is_empty() {
            return Err(Error::data(what, "expected images, got none after `split` and `exclude`"));
        }
        match &config.captions {
            CaptionSource::Text(text) => listing.items.iter_mut().for_each(|item| {
                (item.caption, item.texts) = (None, vec![text.clone()]);
            }),
            CaptionSource::File(file) => {
                listing.items.iter_mut().for_each(|item| item.caption = None);
                listing.read_captions(file, &what, paths)?;
            }
            source => listing.require_captions(source, &what)?,
        }
        listing.require_paired_files(config, &what)?;
        if listing.items.is_empty() {
            return Err(Error::data(what, "expected images, got none with all required labels"));
        }
        Ok(listing)
    }

    /// Number of images of each shard, in order.
    pub(crate) fn shards(&self) -> Vec<usize> {
        let mut counts = vec![0; self.shards];
        self.items.iter().for_each(|item| counts[item.store] += 1);
        counts
    }

    pub(crate) fn image(&self, item: &Item) -> &Stored {
        &self.stores[item.store].files[item.image]
    }

    fn classify(&self, source: ClassSource, what: &str) -> Result<Classes> {
        let count = self.items.len();
        let by_files = || self.labels(what)?.map(|labels| self.by_label(labels)).transpose();
        let names: Vec<&str> = self.items.iter().map(|item| self.image(item).name.as_str()).collect();
        let by_folder = || classes::by_folder(&names).map_err(|message| Error::data(what, message));
        Ok(match source {
            ClassSource::None => classes::none(count),
            ClassSource::Files => by_files()?.ok_or_else(|| {
                Error::data(what, "expected a class in .cls or .json files next to the images, got none")
            })?,
            ClassSource::Folders => {
                by_folder()?.ok_or_else(|| Error::data(what, "expected folders as classes, got none"))?
            }
            ClassSource::Auto => match by_files()? {
                Some(classes) => classes,
                None => by_folder()?.unwrap_or_else(|| classes::none(count)),
            },
        })
    }

    /// Classifies every image by the label next to it.
    fn by_label(&self, labels: Vec<Label>) -> Result<Classes> {
        classes::by_label(labels).map_err(|mixed| {
            let [number, name] = [mixed.number, mixed.name].map(|index| {
                let item = &self.items[index];
                let store = &self.stores[item.store];
                store.path(&store.files[item.label.expect("every image has one")])
            });
            let (number, class) = (number.display(), mixed.class.escape_debug());
            Error::data(name, format!("expected a number as class, as in {number}, got `{class}`"))
        })
    }

    /// Reads the classes in files next to the images: one for every image, or none for any.
    fn labels(&self, what: &str) -> Result<Option<Vec<Label>>> {
        let mut labels = Vec::new();
        let mut without = None;
        for item in &self.items {
            match self.label(item)? {
                Some(label) => labels.push(label),
                None => _ = without.get_or_insert(item),
            }
        }
        match without {
            None => Ok(Some(labels)),
            Some(_) if labels.is_empty() => Ok(None),
            Some(item) => Err(Error::data(
                what,
                format!(
                    "expected a class next to every image, got none for {} of {}, e.g. {}; try classes: folders or none",
                    self.items.len() - labels.len(),
                    self.items.len(),
                    self.image(item).name
                ),
            )),
        }
    }

    fn label(&self, item: &Item) -> Result<Option<Label>> {
        let Some(label) = item.label else { return Ok(None) };
        let store = &self.stores[item.store];
        let file = &store.files[label];
        let bytes = store.read_sidecar(file)?;
        let label =
            if file.has_extension("json") { label_of_json(&bytes) } else { label_of_text(&bytes).map(Some) };
        label.map_err(|message| Error::data(store.path(file), message))
    }

    /// Keeps the images that `split` names and `exclude` does not.
    fn select(&mut self, config: &ImagesConfig, paths: &DataPaths) -> Result<()> {
        let named =
            |list: &Option<PathBuf>| list.as_ref().map(|list| self.named(&paths.resolve(list)?)).transpose();
        let (split, exclude) = (named(&config.split)?, named(&config.exclude)?);
        let mut numbers = 0..;
        self.items.retain(|_| {
            let number = numbers.next().expect("an infinite range");
            split.as_ref().is_none_or(|split| split.contains(&number))
                && exclude.as_ref().is_none_or(|exclude| !exclude.contains(&number))
        });
        Ok(())
    }

    /// Reads the indices of the images in a list; each of its lines must name one.
    fn named(&self, list: &Path) -> Result<HashSet<usize>> {
        let text = text::read(list)?;
        let names = self.names();
        let mut named = HashSet::new();
        let mut unknown = Vec::new();
        for line in text.lines().map(str::trim).filter(|line| !line.is_empty()) {
            match names.find(line) {
                [] => unknown.push(line),
                found => named.extend(found),
            }
        }
        match unknown.first() {
            None => Ok(named),
            Some(first) => Err(Error::data(
                list,
                format!("expected names of images, got {} that are not there, e.g. {first}", unknown.len()),
            )),
        }
    }

    /// Lookup of the images by name.
    pub(crate) fn names(&self) -> ImageNames<'_> {
        ImageNames::of(self.items.iter().map(|item| self.image(item).name.as_str()))
    }

    /// Requires a caption of every image, or of none.
    fn require_captions(&mut self, source: &CaptionSource, what: &str) -> Result<()> {
        if *source == CaptionSource::None || !self.has_captions()? {
            self.items.iter_mut().for_each(|item| item.caption = None);
            return if *source == CaptionSource::None { Ok(()) } else { self.read_metadata(what) };
        }
        let without: Vec<_> = self.items.iter().filter(|item| item.caption.is_none()).collect();
        let Some(first) = without.first() else { return Ok(()) };
        Err(Error::data(
            what,
            format!(
                "expected a caption next to every image, got none for {} of {}, e.g. {}; try adding them, or captions: none",
                without.len(),
                self.items.len(),
                self.image(first).name
            ),
        ))
    }

    /// Returns true when there are `.txt` files, or when the first `.json`, which may have a class alone, has a
    /// caption.
    fn has_captions(&self) -> Result<bool> {
        let files = || {
            let file = |item: &Item| item.caption.map(|caption| (item.store, caption));
            self.items
                .iter()
                .filter_map(file)
                .map(|(store, file)| (&self.stores[store], &self.stores[store].files[file]))
        };
        if files().any(|(_, file)| file.has_extension("txt")) {
            return Ok(true);
        }
        let Some((store, file)) = files().next() else { return Ok(false) };
        let captions = captions_of_json(&store.read_sidecar(file)?);
        Ok(!captions.map_err(|message| Error::data(store.path(file), message))?.is_empty())
    }
}

/// Extensions of sidecar files.
const SIDECARS: [&str; 3] = ["txt", "cls", "json"];

/// The images of a store, with the sidecar files of each.
fn items(number: usize, store: &Store) -> Vec<Item> {
    let mut sidecars: HashMap<(Cow<str>, &str), usize> = HashMap::new();
    for (index, file) in store.files.iter().enumerate() {
        // Of `a.TXT` and `a.txt` the latter, which sorts last.
        if let Some(&known) = SIDECARS.iter().find(|known| file.has_extension(known)) {
            sidecars.insert((composed(file.stem()), known), index);
        }
    }
    let has_ending = |file: &Stored| IMAGE_EXTENSIONS.iter().any(|known| file.has_extension(known));
    // Arrays beside images are features or latents of them.
    let only_arrays = !store.files.iter().any(has_ending);
    let is_image = |file: &Stored| has_ending(file) || only_arrays && file.has_extension("npy");
    let images = store.files.iter().enumerate().filter(|(_, file)| is_image(file));
    images
        .map(|(image, file)| {
            let key = composed(file.stem());
            let find = |extension| sidecars.get(&(key.clone(), extension)).copied();
            let json = find("json");
            Item {
                store: number,
                image,
                caption: find("txt").or(json),
                texts: Vec::new(),
                class: None,
                boxes: Vec::new(),
                label_map: None,
                mask: None,
                label: find("cls").or(json),
            }
        })
        .collect()
}
