//! Paired files: label maps and masks of images, in files of their own.

use std::collections::{HashMap, HashSet};

use serde::{Deserialize, Serialize};

use ldm_core::{Error, Result};

use crate::source::data_paths::DataPaths;
use crate::source::missing::Missing;
use crate::source::names::{composed, stem};
use crate::source::store::Store;

/// Files that belong to the images of a dataset: to `NAME.jpg` the PNG of the same name, where its folder or suffix
/// distinguishes it from an image. None of them is an image of the dataset.
///
/// ```yaml
/// files: { folder: labels }                # images/NAME.jpg and labels/NAME.png, in one archive
/// files: { path: masks.tar }               # NAME.jpg, and NAME.png in another
/// files: { suffix: _L }                    # NAME.png and NAME_L.png
/// ```
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct PairedFilesConfig {
    /// Folder or archive, as `path` of a dataset. Left out, that of the images.
    #[serde(deserialize_with = "crate::source::one_or_many::one_or_many")]
    pub path: Vec<String>,
    /// Folder of the files; the first part of their names.
    pub folder: Option<String>,
    /// Suffix after the name of the image.
    pub suffix: String,
    /// Treatment of images without such a file.
    pub missing: Missing,
}

/// A file, by its store and its index there.
pub(crate) type FileIndex = (usize, usize);

/// Paired files by the names of the images without extension.
#[derive(Debug, Default)]
pub(crate) struct PairedFiles {
    by_name: HashMap<String, FileIndex>,
    /// By the last part of the name; none where several share it.
    by_last: HashMap<String, Option<FileIndex>>,
    places: HashSet<FileIndex>,
}

impl PairedFiles {
    /// Finds the files; stores of their own are added to `stores`.
    pub(crate) fn open(
        config: &PairedFilesConfig,
        what: &str,
        paths: &DataPaths,
        stores: &mut Vec<Store>,
    ) -> Result<Self> {
        let own = stores.len();
        for pattern in &config.path {
            for path in paths.expand(pattern)? {
                stores.push(Store::open(&path)?);
            }
        }
        let searched = if config.path.is_empty() { 0..own } else { own..stores.len() };
        if config.path.is_empty() && config.folder.is_none() && config.suffix.is_empty() {
            return Err(Error::invalid(format!(
                "{what}.files: expected a path, a folder or a suffix that distinguishes the files from the images"
            )));
        }
        let mut found = Self::default();
        for store in searched {
            for (number, file) in stores[store].files.iter().enumerate() {
                let Some(name) = config.image_of(&file.name) else { continue };
                let name = composed(name).into_owned();
                let last = name.rsplit('/').next().expect("a split has a first part").to_owned();
                found.places.insert((store, number));
                found.by_name.insert(name.clone(), (store, number));
                found.by_last.entry(last).and_modify(|only| *only = None).or_insert(Some((store, number)));
            }
        }
        if found.by_name.is_empty() {
            return Err(Error::data(what, "expected .png files that belong to images, got none"));
        }
        Ok(found)
    }

    /// Finds the file of an image: by the whole name, else by the last part where that is unique.
    pub(crate) fn find(&self, image: &str) -> Option<FileIndex> {
        let name = composed(stem(image));
        let last = name.rsplit('/').next().expect("a split has a first part");
        self.by_name.get(&*name).copied().or_else(|| self.by_last.get(last).copied().flatten())
    }

    /// Returns true when a file is one of these, and so no image.
    pub(crate) fn holds(&self, place: FileIndex) -> bool {
        self.places.contains(&place)
    }
}

impl PairedFilesConfig {
    /// The name, without extension, of the image that a file belongs to; none for other files.
    fn image_of<'a>(&self, file: &'a str) -> Option<&'a str> {
        let name = stem(file);
        if !file[name.len()..].eq_ignore_ascii_case(".png") {
            return None;
        }
        let name = match &self.folder {
            Some(folder) => name.strip_prefix(folder.trim_end_matches('/'))?.strip_prefix('/')?,
            None => name,
        };
        name.strip_suffix(&self.suffix).filter(|name| !name.is_empty())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_belong_to_images_by_folder_and_suffix() {
        let config = |folder: Option<&str>, suffix: &str| PairedFilesConfig {
            folder: folder.map(str::to_owned),
            suffix: suffix.to_owned(),
            ..PairedFilesConfig::default()
        };
        assert_eq!(config(Some("labels"), "").image_of("labels/a/1.png"), Some("a/1"));
        assert_eq!(config(Some("labels"), "").image_of("labels2/1.png"), None);
        assert_eq!(config(None, "_L").image_of("a/1_L.PNG"), Some("a/1"));
        assert_eq!(config(None, "_L").image_of("a/1.png"), None);
        assert_eq!(config(None, "_L").image_of("a/1_L.txt"), None);
    }
}
