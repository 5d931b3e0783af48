//! Where results go: never over something that is there.

use std::path::{Path, PathBuf};

use ::image::RgbImage;
use anyhow::{Context, bail};
use ldm_core::{files, image};
use ldm_pipelines::watermark;
use tch::Tensor;

use crate::args::OutputArgs;

/// The folder for the images of `command`: as asked, or the next free `outputs/COMMAND-N`. It is made by
/// [`make`], when there is something to put into it.
pub(crate) fn folder(args: &OutputArgs, command: &str) -> PathBuf {
    args.out.clone().unwrap_or_else(|| {
        (1..=u32::MAX)
            .map(|number| PathBuf::from(format!("outputs/{command}-{number}")))
            .find(|folder| !folder.exists())
            .expect("numbers do not end")
    })
}

/// Makes a folder, if it is not there.
pub(crate) fn make(folder: &Path) -> anyhow::Result<()> {
    std::fs::create_dir_all(folder).with_context(|| folder.display().to_string())
}

/// Refuses a file that is there, unless `force`.
pub(crate) fn free(path: &Path, force: bool) -> anyhow::Result<()> {
    if path.exists() && !force {
        bail!("{}: exists, and is not overwritten without --force", path.display());
    }
    Ok(())
}

/// Refuses to start when one of the `count` images to come, or their grid, is there already.
pub(crate) fn all_free(folder: &Path, count: usize, force: bool) -> anyhow::Result<()> {
    (0..count)
        .map(|index| image(folder, index))
        .chain([folder.join("grid.png")])
        .try_for_each(|path| free(&path, force))
}

/// `00000.png`.
pub(crate) fn image(folder: &Path, index: usize) -> PathBuf {
    folder.join(format!("{index:05}.png"))
}

/// Whether the images that are written carry Stable Diffusion's watermark.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Mark {
    /// They do.
    Always,
    /// Those that are large enough for it.
    WherePossible,
    /// None does.
    Never,
}

impl Mark {
    /// The 8-bit image of one in `[-1, 1]`, `[3, H, W]`.
    pub(crate) fn put(self, image: &Tensor) -> anyhow::Result<RgbImage> {
        let mut image = image::to_rgb8(image);
        if self != Self::Never {
            let done = watermark::embed(&mut image, watermark::STABLE_DIFFUSION);
            if self == Self::Always {
                done.context("--watermark")?;
            }
        }
        Ok(image)
    }
}

/// Writes `grid.png`: images of one size in rows.
pub(crate) fn grid(folder: &Path, images: &Tensor, mark: Mark) -> anyhow::Result<()> {
    let columns = (images.size()[0] as f64).sqrt().ceil() as i64;
    let grid = mark.put(&image::grid(&images.clamp(-1., 1.), columns, 2))?;
    Ok(files::write_bytes(folder.join("grid.png"), &image::png(&grid, &[]))?)
}
