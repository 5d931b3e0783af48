//! Output paths: existing files are not overwritten.

use std::path::{Path, PathBuf};

use anyhow::{Context, bail};
use ldm::Watermark;
use ldm_core::{files, image};
use tch::Tensor;

use crate::args::OutputArgs;

/// Returns the output folder of `command`: the requested one, or the next free `outputs/COMMAND-N`. [`make`] creates it
/// when there is something to write.
pub(crate) fn folder(args: &OutputArgs, command: &str) -> PathBuf {
    args.out.clone().unwrap_or_else(|| {
        (1..=u32::MAX)
            .map(|number| PathBuf::from(format!("outputs/{command}-{number}")))
            .find(|folder| !folder.exists())
            .expect("a free number")
    })
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

/// Refuses existing files among `count` images and their grid, unless `force`.
pub(crate) fn ensure_all_new(folder: &Path, count: usize, force: bool) -> anyhow::Result<()> {
    (0..count)
        .map(|index| image(folder, index))
        .chain([folder.join("grid.png")])
        .try_for_each(|path| ensure_new(&path, force))
}

/// Returns the path of an image: `00000.png`.
pub(crate) fn image(folder: &Path, index: usize) -> PathBuf {
    folder.join(format!("{index:05}.png"))
}

/// Writes `grid.png`, a grid of images of one size.
pub(crate) fn grid(folder: &Path, images: &Tensor, watermark: Watermark) -> anyhow::Result<()> {
    let columns = (images.size()[0] as f64).sqrt().ceil() as i64;
    let grid = watermark.apply(&image::grid(&images.clamp(-1., 1.), columns, 2))?;
    Ok(files::write_bytes(folder.join("grid.png"), &image::png(&grid, &[]))?)
}
