//! Datasets in a config file: `{target, params}`, as everywhere.

use std::path::Path;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use ldm_core::Result;

use crate::dataset::Dataset;
use crate::image::transform::TransformConfig;
use crate::scenes::{SceneConfig, Scenes};
use crate::stored::images::StoredImages;
use crate::stored::images_config::ImagesConfig;

/// A dataset in a config file.
///
/// ```yaml
/// target: images
/// params:
///   path: cifar10/train.tar.gz
///   exclude: cifar10/val.txt
///   transform: { size: 32, flip: 0.5 }
/// ```
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "target", content = "params", rename_all = "snake_case", deny_unknown_fields)]
pub enum DatasetConfig {
    /// Synthetic scenes, built in.
    Scenes(SceneConfig),
    /// Stored images: folders, archives, WebDataset shards. All have the same layout, and both names mean the same.
    #[serde(alias = "webdataset")]
    Images(Box<ImagesConfig>),
}

impl DatasetConfig {
    /// Opens the dataset; relative paths are looked up in `base`, the config's folder, and elsewhere: see
    /// [`DataPaths`](crate::DataPaths).
    ///
    /// # Errors
    /// Those of [`Scenes::new`] and [`StoredImages::open`].
    pub fn open(&self, base: &Path) -> Result<Arc<dyn Dataset>> {
        Ok(match self {
            Self::Scenes(config) => Arc::new(Scenes::new(config.clone())?),
            Self::Images(config) => Arc::new(StoredImages::open((**config).clone(), base)?),
        })
    }
}

/// Opens a dataset named on a command line: a folder, an archive, a pattern of shards, or the word `scenes`.
///
/// Scenes have the size of the transform (64 where it has none); the rest of it does not apply to them.
///
/// # Errors
/// Those of [`DatasetConfig::open`].
pub fn open_path(path: &Path, transform: TransformConfig) -> Result<Arc<dyn Dataset>> {
    let config = if path == Path::new("scenes") {
        let size = transform.size.unwrap_or(SceneConfig::default().size);
        DatasetConfig::Scenes(SceneConfig { size, ..SceneConfig::default() })
    } else {
        DatasetConfig::Images(Box::new(ImagesConfig::new(path.to_string_lossy(), transform)))
    };
    config.open(Path::new(""))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> std::result::Result<DatasetConfig, String> {
        ldm_core::config::parse(text, "data.yaml", &[]).map_err(|error| error.to_string())
    }

    #[test]
    fn datasets_are_selected_by_their_target() {
        let scenes = parse("target: scenes\nparams: {size: 32, objects: [1, 1], split: validation}").unwrap();
        let DatasetConfig::Scenes(config) = &scenes else { panic!("{scenes:?}") };
        assert_eq!((config.size, config.objects), (32, [1, 1]));
        let images =
            parse("target: images\nparams: {path: a.tar, transform: {size: 8, interpolation: linear}}")
                .unwrap();
        let shards = parse(
            "target: webdataset\nparams: {path: [a.tar], transform: {size: 8, interpolation: bilinear}}",
        );
        assert_eq!(images, shards.unwrap());
    }

    #[test]
    fn unknown_keys_are_refused() {
        let check = |text: &str, expected: &str| {
            let error = parse(text).unwrap_err();
            assert!(error.contains(expected), "{error}");
        };
        check("target: imagenet\nparams: {}", "unknown variant `imagenet`");
        check("target: scenes\nparams: {sise: 32}", "unknown field `sise`");
        check("target: images\nparams: {path: 3}", "a path or a list of paths");
        check("target: images\nparams: {path: a, transform: {crop: middle}}", "unknown variant `middle`");
        check("target: images\nparams: {}", "missing field `path`");
    }

    #[test]
    fn the_word_scenes_is_a_dataset() {
        let set = open_path(Path::new("scenes"), TransformConfig::square(16)).unwrap();
        assert_eq!(set.get(0, 0).unwrap().size, [3, 16, 16]);
    }
}
