//! A dataset as a config file says it: `{target, params}`, as everywhere.

use std::fmt;
use std::path::Path;
use std::sync::Arc;

use serde::de::{SeqAccess, Visitor};
use serde::{Deserialize, Deserializer, Serialize};

use ldm_core::Result;

use crate::dataset::Dataset;
use crate::images::Images;
use crate::images_config::ImagesConfig;
use crate::scenes::{SceneConfig, Scenes};
use crate::transform::TransformConfig;

/// Which image set.
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
    /// Drawn scenes, built in.
    Scenes(SceneConfig),
    /// Stored images: folders, archives, WebDataset shards. All have one layout; both words mean the same.
    #[serde(alias = "webdataset")]
    Images(Box<ImagesConfig>),
}

impl DatasetConfig {
    /// Opens the set; relative paths are looked up in `base`, the config's folder, and elsewhere: see
    /// [`DataPaths`](crate::DataPaths).
    ///
    /// # Errors
    /// Those of [`Scenes::new`] and [`Images::open`].
    pub fn open(&self, base: &Path) -> Result<Arc<dyn Dataset>> {
        Ok(match self {
            Self::Scenes(config) => Arc::new(Scenes::new(config.clone())?),
            Self::Images(config) => Arc::new(Images::open((**config).clone(), base)?),
        })
    }
}

/// Opens what was named on a command line: a folder, an archive, a pattern of shards, or the word `scenes`.
///
/// Scenes are drawn at the transform's size (64 where it has none), and the rest of it does not apply to them.
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

/// Reads `a` and `[a, b]` alike. By hand, since serde's `untagged` would lose the line of a mistake.
pub(crate) fn one_or_many<'de, D: Deserializer<'de>>(
    deserializer: D,
) -> std::result::Result<Vec<String>, D::Error> {
    struct OneOrMany;
    impl<'de> Visitor<'de> for OneOrMany {
        type Value = Vec<String>;

        fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str("a path or a list of paths")
        }

        fn visit_str<E>(self, one: &str) -> std::result::Result<Self::Value, E> {
            Ok(vec![one.to_owned()])
        }

        fn visit_seq<A: SeqAccess<'de>>(self, mut many: A) -> std::result::Result<Self::Value, A::Error> {
            let mut paths = Vec::new();
            while let Some(path) = many.next_element()? {
                paths.push(path);
            }
            Ok(paths)
        }
    }
    deserializer.deserialize_any(OneOrMany)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> std::result::Result<DatasetConfig, String> {
        ldm_core::config::parse(text, "data.yaml", &[]).map_err(|error| error.to_string())
    }

    #[test]
    fn sets_are_told_by_their_target() {
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
    fn what_is_unknown_is_refused() {
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
    fn the_word_scenes_is_a_set() {
        let set = open_path(Path::new("scenes"), TransformConfig::square(16)).unwrap();
        assert_eq!(set.get(0, 0).unwrap().size, [3, 16, 16]);
    }
}
