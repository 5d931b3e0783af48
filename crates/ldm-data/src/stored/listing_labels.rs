//! Labels of listed images: boxes, captions, label maps, masks.

use ldm_core::{Error, Result, text};

use crate::labels::boxes::Annotations;
use crate::labels::caption_file::CaptionFile;
use crate::labels::caption_table::{CaptionColumns, METADATA_FILES};
use crate::source::data_paths::DataPaths;
use crate::source::missing::Missing;
use crate::source::paired_files::{FileIndex, PairedFiles, PairedFilesConfig};
use crate::stored::images_config::ImagesConfig;
use crate::stored::listing::{Item, Listing};

impl Listing {
    /// Assigns label maps and masks to their images, and removes them from the images.
    pub(crate) fn find_paired_files(&mut self, config: &ImagesConfig, paths: &DataPaths) -> Result<()> {
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
        let found: Vec<(Option<FileIndex>, Option<FileIndex>)> = self.items.iter().map(found).collect();
        for (item, (label_map, mask)) in self.items.iter_mut().zip(found) {
            (item.label_map, item.mask) = (label_map, mask);
        }
        Ok(())
    }

    /// Assigns boxes, and keeps the images that have a valid number of them.
    pub(crate) fn read_boxes(&mut self, config: &ImagesConfig, paths: &DataPaths) -> Result<()> {
        let Some(config) = &config.boxes else { return Ok(()) };
        let Annotations { classes, boxes, is_part } = Annotations::read(config, paths)?;
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
        if let Some(first) = unknown.first().filter(|_| !is_part) {
            let message = format!(
                "expected boxes of images of the dataset, got {} names that are not there, e.g. {first}",
                unknown.len()
            );
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
            return Err(Error::data(
                file,
                format!("expected images with {fewest} to {most} boxes, got none"),
            ));
        }
        self.box_classes = classes;
        Ok(())
    }

    /// Assigns the captions of a file.
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
        let what_is = format!("a caption in {}", file.file.display());
        self.require(file.missing, what, &what_is, |item| !item.texts.is_empty())
    }

    /// Assigns the captions of Hugging Face's metadata files, whose names are relative to their folder: for every
    /// image, or for none.
    pub(crate) fn read_metadata(&mut self, what: &str) -> Result<()> {
        let mut of = vec![Vec::new(); self.items.len()];
        let mut names = None;
        for (number, store) in self.stores[..self.shards].iter().enumerate() {
            for file in &store.files {
                let (folder, last) = file.name.rsplit_once('/').map_or(("", &*file.name), |parts| parts);
                if !METADATA_FILES.contains(&last) {
                    continue;
                }
                let bad = |message: String| Error::data(store.path(file), message);
                let text = text::decode(&store.read(file)?).map_err(bad)?;
                let columns = CaptionColumns { may_lack: true, ..CaptionColumns::default() };
                let is_csv = file.has_extension("csv");
                let captions = if is_csv { columns.commas(&text) } else { columns.json_lines(&text) };
                let names = names.get_or_insert_with(|| self.names());
                for (name, captions) in captions.map_err(bad)? {
                    let whole = if folder.is_empty() { name } else { format!("{folder}/{name}") };
                    let found = names.find(&whole).iter().filter(|&&image| self.items[image].store == number);
                    found.for_each(|&image| of[image].extend(captions.iter().cloned()));
                }
            }
        }
        drop(names);
        let count = of.iter().filter(|texts: &&Vec<String>| texts.is_empty()).count();
        if let Some(first) = of.iter().position(Vec::is_empty)
            && count < of.len()
        {
            let (all, name) = (of.len(), &self.image(&self.items[first]).name);
            let message = format!(
                "expected a caption of every image in {}, got none for {count} of {all}, e.g. {name}; try captions: none",
                METADATA_FILES.join(" or ")
            );
            return Err(Error::data(what, message));
        }
        self.items.iter_mut().zip(of).for_each(|(item, texts)| item.texts = texts);
        Ok(())
    }

    /// Requires a label map and a mask of every image, where the dataset has them.
    pub(crate) fn require_paired_files(&mut self, config: &ImagesConfig, what: &str) -> Result<()> {
        if let Some(maps) = &config.label_maps {
            self.require(maps.files.missing, what, "a label map", |item| item.label_map.is_some())?;
        }
        if let Some(files) = config.mask_files() {
            self.require(files.missing, what, "a mask", |item| item.mask.is_some())?;
        }
        Ok(())
    }

    fn require(
        &mut self,
        missing: Missing,
        what: &str,
        label: &str,
        has: impl Fn(&Item) -> bool,
    ) -> Result<()> {
        if missing == Missing::Skip {
            self.items.retain(has);
            return Ok(());
        }
        let without: Vec<&Item> = self.items.iter().filter(|item| !has(item)).collect();
        let Some(first) = without.first() else { return Ok(()) };
        let (count, all, name) = (without.len(), self.items.len(), &self.image(first).name);
        let message = format!(
            "expected {label} of every image, got none for {count} of {all}, e.g. {name}; try missing: skip"
        );
        Err(Error::data(what, message))
    }
}
