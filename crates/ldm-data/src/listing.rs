//! Which images an image set has, with what stands beside each.

use std::collections::{HashMap, HashSet};
use std::path::{Path, PathBuf};

use ldm_core::{Error, LayoutBox, Result};

use crate::caption_file::CaptionSource;
use crate::classes::{self, Classes};
use crate::data_paths::DataPaths;
use crate::decode::ENDINGS;
use crate::images_config::{ClassSource, ImagesConfig};
use crate::names::Names;
use crate::paired_files::Place;
use crate::shards::expand;
use crate::sidecar::{Label, captions_of_json, label_of_json, label_of_text};
use crate::store::{Store, Stored};

/// The images of a set, in order.
#[derive(Debug)]
pub(crate) struct Listing {
    pub(crate) stores: Vec<Store>,
    pub(crate) items: Vec<Item>,
    pub(crate) classes: Vec<String>,
    /// The names of the classes of boxes.
    pub(crate) box_classes: Vec<String>,
    /// How many of the stores hold images, the first ones.
    shards: usize,
}

/// One image: where it and its caption lie, by their numbers in a store.
#[derive(Debug)]
pub(crate) struct Item {
    pub(crate) store: usize,
    pub(crate) image: usize,
    pub(crate) caption: Option<usize>,
    /// The captions of a file of captions.
    pub(crate) texts: Vec<String>,
    pub(crate) class: Option<i64>,
    pub(crate) boxes: Vec<LayoutBox>,
    pub(crate) label_map: Option<Place>,
    pub(crate) mask: Option<Place>,
    label: Option<usize>,
}

impl Listing {
    pub(crate) fn open(config: &ImagesConfig, paths: &DataPaths) -> Result<Self> {
        let what = config.path.join(", ");
        let mut stores = Vec::new();
        for pattern in &config.path {
            for path in expand(pattern)? {
                stores.push(Store::open(&paths.resolve(path)?)?);
            }
        }
        let items = stores.iter().enumerate().flat_map(|(number, store)| items(number, store)).collect();
        let shards = stores.len();
        let mut listing = Self { stores, items, classes: Vec::new(), box_classes: Vec::new(), shards };
        listing.find_beside(config, paths)?;
        if listing.items.is_empty() {
            return Err(Error::data(
                what,
                format!("holds no images (no file ends in {})", ENDINGS.join(", ")),
            ));
        }
        let Classes { names, of } = listing.classify(config.classes, &what)?;
        listing.classes = names;
        listing.items.iter_mut().zip(of).for_each(|(item, class)| item.class = class);
        listing.read_boxes(config, paths)?;
        listing.select(config, paths)?;
        if listing.items.is_empty() {
            return Err(Error::data(what, "no image is left after `split` and `exclude`"));
        }
        if let CaptionSource::File(file) = &config.captions {
            listing.items.iter_mut().for_each(|item| item.caption = None);
            listing.read_captions(file, &what, paths)?;
        } else {
            listing.settle_captions(&config.captions, &what)?;
        }
        listing.settle_beside(config, &what)?;
        if listing.items.is_empty() {
            return Err(Error::data(what, "no image is left that has all that was asked for"));
        }
        Ok(listing)
    }

    /// How many images each shard has, in order.
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
        let by_files = || self.labels(what).map(|labels| labels.map(classes::by_label));
        let names: Vec<&str> = self.items.iter().map(|item| self.image(item).name.as_str()).collect();
        let by_folder = || classes::by_folder(&names).map_err(|message| Error::data(what, message));
        Ok(match source {
            ClassSource::None => classes::none(count),
            ClassSource::Files => by_files()?
                .ok_or_else(|| Error::data(what, "no .cls or .json beside the images gives a class"))?,
            ClassSource::Folders => {
                by_folder()?.ok_or_else(|| Error::data(what, "has no folders that could be classes"))?
            }
            ClassSource::Auto => match by_files()? {
                Some(classes) => classes,
                None => by_folder()?.unwrap_or_else(|| classes::none(count)),
            },
        })
    }

    /// What the files beside the images give as classes: one for every image, or none for any.
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
                    "{} of {} images have no class beside them, e.g. {}; set classes: folders or none",
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
        let bytes = store.read(file)?;
        let label =
            if file.ending() == "json" { label_of_json(&bytes) } else { label_of_text(&bytes).map(Some) };
        label.map_err(|message| Error::data(store.path(file), message))
    }

    /// Keeps what `split` names and `exclude` does not.
    fn select(&mut self, config: &ImagesConfig, paths: &DataPaths) -> Result<()> {
        let named =
            |list: &Option<PathBuf>| list.as_ref().map(|list| self.named(&paths.resolve(list)?)).transpose();
        let (split, exclude) = (named(&config.split)?, named(&config.exclude)?);
        let mut numbers = 0..;
        self.items.retain(|_| {
            let number = numbers.next().expect("an endless range");
            split.as_ref().is_none_or(|split| split.contains(&number))
                && exclude.as_ref().is_none_or(|exclude| !exclude.contains(&number))
        });
        Ok(())
    }

    /// The numbers of the images a list names; each of its lines must name one.
    fn named(&self, list: &Path) -> Result<HashSet<usize>> {
        let text = std::fs::read_to_string(list).map_err(Error::io(list))?;
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
                format!("names {} images that are not there, e.g. {first}", unknown.len()),
            )),
        }
    }

    /// The images by their names.
    pub(crate) fn names(&self) -> Names<'_> {
        Names::of(self.items.iter().map(|item| self.image(item).name.as_str()))
    }

    /// Every image gets a caption, or none does.
    fn settle_captions(&mut self, source: &CaptionSource, what: &str) -> Result<()> {
        if *source == CaptionSource::None || !self.gives_captions()? {
            self.items.iter_mut().for_each(|item| item.caption = None);
            return Ok(());
        }
        let without: Vec<_> = self.items.iter().filter(|item| item.caption.is_none()).collect();
        let Some(first) = without.first() else { return Ok(()) };
        Err(Error::data(
            what,
            format!(
                "{} of {} images have no caption beside them, e.g. {}; add them, or set captions: none",
                without.len(),
                self.items.len(),
                self.image(first).name
            ),
        ))
    }

    /// A `.txt` does. A `.json` may hold a class alone: the first one is looked into.
    fn gives_captions(&self) -> Result<bool> {
        let files = || {
            let file = |item: &Item| item.caption.map(|caption| (item.store, caption));
            self.items
                .iter()
                .filter_map(file)
                .map(|(store, file)| (&self.stores[store], &self.stores[store].files[file]))
        };
        if files().any(|(_, file)| file.ending() == "txt") {
            return Ok(true);
        }
        let Some((store, file)) = files().next() else { return Ok(false) };
        let captions = captions_of_json(&store.read(file)?);
        Ok(!captions.map_err(|message| Error::data(store.path(file), message))?.is_empty())
    }
}

/// The images of a store, with what stands beside each.
fn items(number: usize, store: &Store) -> Vec<Item> {
    let mut beside: HashMap<(&str, &str), usize> = HashMap::new();
    for (index, file) in store.files.iter().enumerate() {
        if ["txt", "cls", "json"].contains(&file.ending()) {
            beside.insert((file.stem(), file.ending()), index);
        }
    }
    let is_image = |file: &Stored| ENDINGS.iter().any(|known| file.ending().eq_ignore_ascii_case(known));
    let images = store.files.iter().enumerate().filter(|(_, file)| is_image(file));
    images
        .map(|(image, file)| {
            let key = file.stem();
            let find = |ending| beside.get(&(key, ending)).copied();
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
