//! The safety checker of generated images.

use std::fmt;
use std::path::{Path, PathBuf};
use std::str::FromStr;

use ldm_conditioning::{SafetyChecker, SafetyScores};
use ldm_core::{Error, Result, image};
use ldm_data::{Interpolation, Rng, Transform, TransformConfig};
use tch::{Device, Tensor};

/// The folder of the checker in a folder of diffusers.
const FOLDER: &str = "safety_checker";

/// The use of a safety checker.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum SafetyMode {
    /// Replaces an unsafe image by a black one, as diffusers.
    #[default]
    Block,
    /// Reports an unsafe image.
    Warn,
    /// Checks nothing.
    Off,
}

impl SafetyMode {
    /// All names, in the order of the variants.
    pub const NAMES: [&'static str; 3] = ["block", "warn", "off"];
}

impl FromStr for SafetyMode {
    type Err = Error;

    fn from_str(word: &str) -> Result<Self> {
        let all = [Self::Block, Self::Warn, Self::Off];
        let found = Self::NAMES.iter().position(|name| *name == word).map(|index| all[index]);
        found.ok_or_else(|| Error::expected("safety", Self::NAMES.join(", "), word))
    }
}

impl fmt::Display for SafetyMode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(Self::NAMES[*self as usize])
    }
}

/// A safety checker and its use.
#[derive(Debug)]
pub struct SafetyFilter {
    checker: SafetyChecker,
    mode: SafetyMode,
    transform: Transform,
}

impl SafetyFilter {
    /// Opens the checker in `given`, a folder of diffusers or of its `safety_checker`, else the one that belongs to the
    /// model at `model`. None without one, and with [`SafetyMode::Off`].
    ///
    /// # Errors
    /// As [`SafetyChecker::open`].
    pub fn find(
        model: &Path,
        given: Option<&Path>,
        mode: SafetyMode,
        device: Device,
    ) -> Result<Option<Self>> {
        let folder = match given {
            Some(folder) => Some(inner(folder)),
            None => Some(model.join(FOLDER)).filter(|folder| folder.join("config.json").is_file()),
        };
        match folder {
            Some(folder) if mode != SafetyMode::Off => Self::open(&folder, mode, device).map(Some),
            _ => Ok(None),
        }
    }

    fn open(folder: &Path, mode: SafetyMode, device: Device) -> Result<Self> {
        let checker = SafetyChecker::open(folder, device)?;
        // As CLIP's own preparation: the smaller side resized by PIL's bicubic, the center cropped.
        let side = checker.side() as u32;
        let transform =
            TransformConfig { interpolation: Interpolation::Bicubic, ..TransformConfig::square(side) };
        Ok(Self { checker, mode, transform: Transform::new(transform)? })
    }

    /// Checks images; returns them, with unsafe ones black where they are blocked, and adds to `flags`, for each, true if it
    /// is unsafe.
    ///
    /// # Shapes
    /// - `images`: `[B, 3, H, W]` in `[-1, 1]`, not clamped; returns the same
    ///
    /// # Errors
    /// [`Error::Invalid`] for images that cannot be resized to the checker's.
    pub fn check(&self, images: Tensor, flags: &mut Vec<bool>) -> Result<Tensor> {
        let before = flags.len();
        for index in 0..images.size()[0] {
            let pixels = image::to_rgb8(&images.get(index).clamp(-1., 1.));
            let small = self.transform.apply(pixels, &mut Rng::of(&[])).map_err(Error::invalid)?;
            let scores = self.checker.scores(&image::from_rgb8(&small).unsqueeze(0))?;
            flags.push(scores.iter().any(SafetyScores::is_unsafe));
        }
        let flags = &flags[before..];
        if self.mode != SafetyMode::Block || !flags.contains(&true) {
            return Ok(images);
        }
        let blocked = Tensor::from_slice(flags).view([-1, 1, 1, 1]).to_device(images.device());
        Ok(images.masked_fill(&blocked, -1.))
    }

    /// Says how many of `total` images were unsafe, if any.
    pub fn report(&self, flagged: usize, total: usize) -> Option<String> {
        let done = match self.mode {
            SafetyMode::Block => "replaced by black images; try another prompt or seed, or --safety warn",
            _ => "left as they are",
        };
        (flagged > 0).then(|| format!("the safety checker found {flagged} of {total} images unsafe; {done}"))
    }
}

/// The folder of the checker in a folder of diffusers, or the folder itself.
fn inner(folder: &Path) -> PathBuf {
    Some(folder.join(FOLDER)).filter(|inner| inner.is_dir()).unwrap_or_else(|| folder.to_path_buf())
}
