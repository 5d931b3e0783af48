//! Output paths: existing files are not overwritten.

use std::io::ErrorKind;
use std::ops::Deref;
use std::path::{Path, PathBuf};

use anyhow::{Context, bail};
use ldm_core::{FileContent, files};

use crate::args::OutputArgs;

/// Parent of the default output folders.
const OUTPUTS: &str = "outputs";

/// Output folder of a command. [`make`] creates a requested one when there is something to write.
#[derive(Debug)]
pub(crate) struct OutputFolder {
    path: PathBuf,
    /// True if this command created it, to be alone in it.
    claimed: bool,
}

impl OutputFolder {
    /// Returns the requested folder, or creates the next `outputs/COMMAND-N`: commands that start together get different
    /// ones.
    pub(crate) fn new(args: &OutputArgs, command: &str) -> anyhow::Result<Self> {
        if let Some(path) = args.out.clone() {
            if path.exists() && !path.is_dir() {
                bail!("--out: expected a folder, got the file {}", path.display());
            }
            return Ok(Self { path, claimed: false });
        }
        let mut number = 1_u64;
        loop {
            make(Path::new(OUTPUTS))?;
            let path = Path::new(OUTPUTS).join(format!("{command}-{number}"));
            match std::fs::create_dir(&path) {
                Ok(()) => return Ok(Self { path, claimed: true }),
                Err(error) if error.kind() == ErrorKind::AlreadyExists => number += 1,
                // Another command that wrote nothing has removed the parent.
                Err(error) if error.kind() == ErrorKind::NotFound => {}
                Err(error) => return Err(error).with_context(|| path.display().to_string()),
            }
        }
    }
}

impl Deref for OutputFolder {
    type Target = Path;

    fn deref(&self) -> &Path {
        &self.path
    }
}

impl Drop for OutputFolder {
    /// Removes a created folder if nothing was written to it.
    fn drop(&mut self) {
        if self.claimed {
            // Folders that are not empty stay.
            drop(std::fs::remove_dir(&self.path).and_then(|()| std::fs::remove_dir(OUTPUTS)));
        }
    }
}

/// Creates a folder if it does not exist.
pub(crate) fn make(folder: &Path) -> anyhow::Result<()> {
    std::fs::create_dir_all(folder).with_context(|| folder.display().to_string())
}

/// Refuses an existing path, unless `force`.
pub(crate) fn ensure_new(path: &Path, force: bool) -> anyhow::Result<()> {
    if path.exists() && !force {
        bail!("{}: expected a new path, got an existing one; try --force", path.display());
    }
    Ok(())
}

/// [`ensure_new`] for a file of `content`: with `force` one of the same content is replaced, and no other.
pub(crate) fn ensure_replaceable(path: &Path, content: FileContent, force: bool) -> anyhow::Result<()> {
    ensure_new(path, force)?;
    Ok(content.check_replaceable(path)?)
}

/// [`ensure_replaceable`] for a file that the user names: its folder must exist, as it is written at the end.
pub(crate) fn ensure_writable(path: &Path, content: FileContent, force: bool) -> anyhow::Result<()> {
    files::check_folder_of(path)?;
    ensure_replaceable(path, content, force)
}

/// Refuses existing files among `count` images and their grid, unless `force`.
pub(crate) fn ensure_all_new(folder: &Path, count: usize, force: bool) -> anyhow::Result<()> {
    let images = (0..count).map(|index| image(folder, index));
    images.chain([grid(folder)]).try_for_each(|path| ensure_replaceable(&path, FileContent::Png, force))
}

/// Returns the path of an image: `00000.png`.
pub(crate) fn image(folder: &Path, index: usize) -> PathBuf {
    folder.join(format!("{index:05}.png"))
}

/// Returns the path of the grid.
pub(crate) fn grid(folder: &Path) -> PathBuf {
    folder.join("grid.png")
}
