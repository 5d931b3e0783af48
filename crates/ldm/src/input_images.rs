//! Input images: one file, or those of a folder.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use ldm_core::{Error, Result};
use ldm_data::IMAGE_EXTENSIONS;

/// The input images of a task: one file, or those of a folder.
#[derive(Debug)]
pub struct InputImages {
    /// The files, in the order of their names.
    pub paths: Vec<PathBuf>,
    /// True if they are the files of a folder.
    folder: bool,
}

impl InputImages {
    /// Returns the image file `path`, or the image files of the folder `path` in the order of their names.
    ///
    /// # Errors
    /// [`Error::Io`] when a folder cannot be read, [`Error::Invalid`] when it holds no image.
    pub fn find(path: &Path) -> Result<Self> {
        if !path.is_dir() {
            return Ok(Self { paths: vec![path.to_path_buf()], folder: false });
        }
        let mut paths = Vec::new();
        for entry in path.read_dir().map_err(Error::io(path))? {
            let file = entry.map_err(Error::io(path))?.path();
            if is_image(&file) && file.is_file() {
                paths.push(file);
            }
        }
        if paths.is_empty() {
            let expected = format!("image files ({})", IMAGE_EXTENSIONS.join(", "));
            return Err(Error::expected(path.display(), expected, "none"));
        }
        paths.sort();
        Ok(Self { paths, folder: true })
    }

    /// Returns the names without extension of the files of a folder, and none of a single file.
    ///
    /// # Errors
    /// [`Error::Invalid`] when two are equal: their outputs would be one file.
    pub fn names(&self) -> Result<Vec<String>> {
        let mut seen: BTreeMap<String, &Path> = BTreeMap::new();
        for path in self.paths.iter().filter(|_| self.folder) {
            let name = path.file_stem().unwrap_or_default().to_string_lossy().into_owned();
            if let Some(other) = seen.insert(name, path) {
                let expected = "names that differ before the extension";
                return Err(Error::expected(path.display(), expected, other.display()));
            }
        }
        let name = |path: &PathBuf| path.file_stem().unwrap_or_default().to_string_lossy().into_owned();
        Ok(self.paths.iter().filter(|_| self.folder).map(name).collect())
    }

    /// Keeps the files that a rule accepts, of a folder.
    pub fn retain(&mut self, accept: impl Fn(&Path) -> bool) {
        if self.folder {
            self.paths.retain(|path| accept(path));
        }
    }
}

fn is_image(path: &Path) -> bool {
    let extension = path.extension().unwrap_or_default().to_string_lossy().to_lowercase();
    IMAGE_EXTENSIONS.contains(&extension.as_str())
}
