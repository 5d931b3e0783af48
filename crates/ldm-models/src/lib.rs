//! Models inside the program.
//!
//! A program that links this crate can generate images without a download: [`EMOJI`] draws emoji from captions. A model is
//! opened like every other one, from a folder; [`EmbeddedModel::unpack`] writes that folder into the user's cache once.
//!
//! ```no_run
//! let folder = ldm_models::EMOJI.unpack()?; // --model of the command line, `Pipeline::open` of the library
//! # Ok::<(), ldm_core::Error>(())
//! ```

use std::path::{Path, PathBuf};

use ldm_core::{Error, Result, files, resources};

/// A model whose files are part of the program.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct EmbeddedModel {
    /// Name, which `--model` of the command line takes.
    pub name: &'static str,
    /// The images it generates, in a few words.
    pub summary: &'static str,
    /// Version of the weights, part of the folder's path: models of two versions of the program do not replace each other.
    pub version: &'static str,
    /// Paths in the folder, and their contents.
    pub files: &'static [(&'static str, &'static [u8])],
}

/// Noto emoji of 64x64 pixels from their names, as `red heart` or `woman astronaut: medium skin tone`.
///
/// A text model after Rombach et al. 2022 in miniature: KL first stage (f = 4, 8 channels), a transformer over word pieces,
/// a U-Net with cross-attention. `emoji/README.md` is the model card.
pub const EMOJI: EmbeddedModel = EmbeddedModel {
    name: "emoji",
    summary: "emoji from captions, 64x64 pixels",
    version: "1",
    files: &[
        ("config.yaml", include_bytes!("../emoji/config.yaml")),
        ("model.safetensors", include_bytes!("../emoji/model.safetensors")),
        ("tokenizer/vocab.txt", include_bytes!("../emoji/tokenizer/vocab.txt")),
        ("README.md", include_bytes!("../emoji/README.md")),
    ],
};

/// Every embedded model.
pub const ALL: [EmbeddedModel; 1] = [EMOJI];

/// The path of a model: that of the unpacked folder where `path` is the name of an embedded model, and no file or folder;
/// else `path` itself.
///
/// # Errors
/// As [`EmbeddedModel::unpack`].
pub fn resolve(path: PathBuf) -> Result<PathBuf> {
    match ALL.iter().find(|model| path.as_os_str() == model.name) {
        Some(model) if !path.exists() => model.unpack(),
        _ => Ok(path),
    }
}

impl EmbeddedModel {
    /// Writes the model's folder into the [cache](resources::cache_dir), unless it is there unchanged, and returns its path.
    ///
    /// # Errors
    /// [`Error::Io`] when it cannot be written; [`Error::Invalid`] when there is no cache folder.
    pub fn unpack(&self) -> Result<PathBuf> {
        self.unpack_into(&resources::cache_dir()?.join("embedded"))
    }

    /// [`EmbeddedModel::unpack`] into another folder than the cache: `folder/NAME-VERSION/NAME`.
    ///
    /// # Errors
    /// [`Error::Io`] when it cannot be written.
    pub fn unpack_into(&self, folder: &Path) -> Result<PathBuf> {
        let path = folder.join(format!("{}-{}", self.name, self.version)).join(self.name);
        if self.is_unchanged(&path) {
            return Ok(path);
        }
        let replace = path.exists();
        let written = files::write_folder(&path, replace, |folder| {
            self.files.iter().try_for_each(|(name, bytes)| {
                let file = folder.join(name);
                files::make_folder(file.parent().expect("a file in a folder"))?;
                files::write_bytes(file, bytes)
            })
        });
        match written {
            // Another program was faster, with the same files.
            Err(Error::Io { .. }) if self.is_unchanged(&path) => Ok(path),
            written => written.map(|()| path),
        }
    }

    /// Returns true when the folder `path` has every file with its content.
    fn is_unchanged(&self, path: &Path) -> bool {
        self.files.iter().all(|(name, bytes)| {
            let file = path.join(name);
            file.metadata().is_ok_and(|metadata| metadata.len() == bytes.len() as u64)
                && std::fs::read(file).is_ok_and(|found| found == *bytes)
        })
    }
}
