//! A folder of images with files next to them, opened as a dataset.

use std::path::Path;
use std::sync::Arc;

use image::{ImageFormat, Rgb, RgbImage};
use ldm_data::{Dataset, DatasetConfig};
use tempfile::TempDir;

fn write(root: &Path, name: &str, content: impl AsRef<[u8]>) {
    let path = root.join(name);
    std::fs::create_dir_all(path.parent().unwrap()).unwrap();
    std::fs::write(path, content).unwrap();
}

pub(crate) fn png(image: impl Into<image::DynamicImage>) -> Vec<u8> {
    let mut bytes = std::io::Cursor::new(Vec::new());
    image.into().write_to(&mut bytes, ImageFormat::Png).unwrap();
    bytes.into_inner()
}

/// Images 40x30 with the coordinates of each pixel as its color.
fn places() -> RgbImage {
    RgbImage::from_fn(40, 30, |x, y| Rgb([x as u8, y as u8, 9]))
}

/// A folder of images `a.png`, `b.png`, ... and the dataset of a config; `ROOT` is the folder in errors.
pub(crate) struct ImageFolder {
    root: TempDir,
}

impl ImageFolder {
    pub(crate) fn new(names: &[&str]) -> Self {
        let root = tempfile::tempdir().unwrap();
        for name in names {
            write(root.path(), &format!("images/{name}.png"), png(places()));
        }
        Self { root }
    }

    pub(crate) fn with(self, name: &str, content: impl AsRef<[u8]>) -> Self {
        write(self.root.path(), name, content);
        self
    }

    pub(crate) fn try_open(&self, params: &str) -> Result<Arc<dyn Dataset>, String> {
        let text = format!("target: images\nparams: {{path: images, {params}}}");
        let config: DatasetConfig =
            ldm_core::config::parse(&text, "set.yaml", &[]).map_err(|error| error.to_string())?;
        config.open(self.root.path()).map_err(|error| error.to_string())
    }

    pub(crate) fn open(&self, params: &str) -> Arc<dyn Dataset> {
        self.try_open(params).unwrap()
    }

    #[track_caller]
    pub(crate) fn check_refused(&self, params: &str, expected: &str) {
        let message = match self.try_open(params) {
            Err(message) => message,
            Ok(set) => {
                (0..set.len()).find_map(|index| set.get(index, 0).err()).expect("an error").to_string()
            }
        };
        let message = message.replace(&self.root.path().display().to_string(), "ROOT");
        assert_eq!(message, expected);
    }

    #[track_caller]
    pub(crate) fn check_missing(&self, params: &str, name: &str) {
        let message = self.try_open(params).err().expect("an error");
        let place = self.root.path().join(name);
        let expected =
            format!("{name}: expected a file or a folder, got nothing at {}, {name}", place.display());
        assert!(message.starts_with(&expected) && message.contains("LDM_DATA"), "{message}");
    }
}
