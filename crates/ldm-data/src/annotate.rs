//! What files beside a set say of its images: boxes, captions, label maps, masks.

use ldm_core::{Error, Result};

use crate::boxes::Annotations;
use crate::caption_file::{CaptionFile, Missing};
use crate::data_paths::DataPaths;
use crate::images_config::ImagesConfig;
use crate::listing::{Item, Listing};
use crate::paired_files::{PairedFiles, PairedFilesConfig, Place};

impl Listing {
    /// Gives images the label maps and masks that belong to them; what is one of these is no image.
    pub(crate) fn find_beside(&mut self, config: &ImagesConfig, paths: &DataPaths) -> Result<()> {
        let mut open = |what: &str, config: Option<&PairedFilesConfig>| {
            config.map(|config| PairedFiles::open(config, what, paths, &mut self.stores)).transpose()
        };
        let maps =
            open("label_maps", config.label_maps.as_ref().map(|maps| &maps.files))?.unwrap_or_default();
        let masks = open("masks", config.mask_files())?.unwrap_or_default();
        self.items.retain(|item| {
            let place = (item.store, item.image);
            !maps.holds(place) && !masks.holds(place)
        });
        let found = |item: &Item| {
            let name = &self.stores[item.store].files[item.image].name;
            (maps.find(name), masks.find(name))
        };
        let found: Vec<(Option<Place>, Option<Place>)> = self.items.iter().map(found).collect();
        for (item, (label_map, mask)) in self.items.iter_mut().zip(found) {
            (item.label_map, item.mask) = (label_map, mask);
        }
        Ok(())
    }

    /// Keeps the images that have a number of boxes that counts.
    pub(crate) fn read_boxes(&mut self, config: &ImagesConfig, paths: &DataPaths) -> Result<()> {
        let Some(config) = &config.boxes else { return Ok(()) };
        let Annotations { classes, boxes } = Annotations::read(config, paths)?;
        let mut of = vec![None; self.items.len()];
        let mut unknown = Vec::new();
        {
            let names = self.names();
            for (name, boxes) in boxes {
                match names.find(&name) {
                    [] => unknown.push(name),
                    found => found.iter().for_each(|&number| of[number] = Some(boxes.clone())),
                }
            }
        }
        let file = paths.resolve(&config.annotations[0])?;
        if let Some(first) = unknown.first() {
            let message = format!("has boxes of {} images that are not there, e.g. {first}", unknown.len());
            return Err(Error::data(file, message));
        }
        let mut of = of.into_iter();
        self.items.retain_mut(|item| {
            let boxes = of.next().expect("one for each image");
            let counts = boxes.is_some();
            item.boxes = boxes.unwrap_or_default();
            counts
        });
        if self.items.is_empty() {
            let (fewest, most) = (config.min_objects_per_image, config.max_objects_per_image);
            return Err(Error::data(file, format!("no image has {fewest} to {most} boxes that count")));
        }
        self.box_classes = classes;
        Ok(())
    }

    /// Gives images the captions of a file.
    pub(crate) fn read_captions(&mut self, file: &CaptionFile, what: &str, paths: &DataPaths) -> Result<()> {
        let captions = file.read(paths)?;
        let mut of = vec![Vec::new(); self.items.len()];
        {
            let names = self.names();
            for (name, captions) in captions {
                names.find(&name).iter().for_each(|&number| of[number].extend(captions.iter().cloned()));
            }
        }
        self.items.iter_mut().zip(of).for_each(|(item, texts)| item.texts = texts);
        let why = format!("no caption in {}", file.file.display());
        self.settle(file.missing, what, &why, |item| !item.texts.is_empty())
    }

    /// Every image has a label map and a mask, where the set has any.
    pub(crate) fn settle_beside(&mut self, config: &ImagesConfig, what: &str) -> Result<()> {
        if let Some(maps) = &config.label_maps {
            self.settle(maps.files.missing, what, "no label map", |item| item.label_map.is_some())?;
        }
        if let Some(files) = config.mask_files() {
            self.settle(files.missing, what, "no mask", |item| item.mask.is_some())?;
        }
        Ok(())
    }

    fn settle(
        &mut self,
        missing: Missing,
        what: &str,
        lack: &str,
        has: impl Fn(&Item) -> bool,
    ) -> Result<()> {
        if missing == Missing::Skip {
            self.items.retain(has);
            return Ok(());
        }
        let without: Vec<&Item> = self.items.iter().filter(|item| !has(item)).collect();
        let Some(first) = without.first() else { return Ok(()) };
        let (count, all, name) = (without.len(), self.items.len(), &self.image(first).name);
        let message =
            format!("{count} of {all} images have {lack}, e.g. {name}; add it, or set missing: skip");
        Err(Error::data(what, message))
    }
}
