//! The folder of a study.

use std::path::{Path, PathBuf};

use ldm_core::{Error, Result, files};
use serde::Serialize;
use serde::de::DeserializeOwned;

use super::plan;
use super::study_file::StudyFile;
use crate::context::{Context, bail};

/// The folder of a study.
///
/// ```text
/// DIR/study.yaml              the study
/// DIR/reference.json          the real images, and the distance of the training set
/// DIR/f4/first-stage.yaml     the complete training configs, for `ldm train` too
/// DIR/f4/diffusion.yaml
/// DIR/f4/first-stage/         the runs
/// DIR/f4/diffusion/
/// DIR/f4/points.jsonl         one line per measurement during training
/// DIR/f4/first-stage.json     results; a part with a result is not run again
/// DIR/f4/diffusion.json
/// DIR/f4/sampling.json
/// DIR/f4/*.png                reconstructions, samples
/// DIR/results.json, results.csv, first-stages.csv, *.svg, report.html
/// ```
#[derive(Debug)]
pub struct StudyDir(PathBuf);

/// A part of a study, run in its own process to measure its peak memory.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum StudyPart {
    /// The distance of the training set to the held-out images.
    Reference,
    /// Training and evaluation of the first stage of a factor.
    FirstStage(i64),
    /// Training of the diffusion model of a factor, with evaluations.
    Diffusion(i64),
    /// Evaluation and timing of the trained diffusion model of a factor.
    Sampling(i64),
}

impl StudyPart {
    /// Returns its name: `reference`, `4/diffusion`.
    pub fn name(self) -> String {
        match self {
            Self::Reference => "reference".into(),
            Self::FirstStage(f) => format!("{f}/first-stage"),
            Self::Diffusion(f) => format!("{f}/diffusion"),
            Self::Sampling(f) => format!("{f}/sampling"),
        }
    }

    /// Parses the name of a part.
    ///
    /// # Errors
    /// When no part has this name.
    pub fn parse(name: &str) -> Result<Self> {
        let of_factor = |(f, part): (&str, &str)| {
            let f: i64 = f.parse().ok()?;
            match part {
                "first-stage" => Some(Self::FirstStage(f)),
                "diffusion" => Some(Self::Diffusion(f)),
                "sampling" => Some(Self::Sampling(f)),
                _ => None,
            }
        };
        match name {
            "reference" => Ok(Self::Reference),
            _ => name
                .split_once('/')
                .and_then(of_factor)
                .ok_or_else(|| Error::invalid(format!("--part: expected a part of a study, got {name}"))),
        }
    }

    /// Returns the title for messages.
    pub fn title(self) -> String {
        match self {
            Self::Reference => "the real images".into(),
            Self::FirstStage(f) => format!("f = {f}: first stage"),
            Self::Diffusion(f) => format!("f = {f}: diffusion"),
            Self::Sampling(f) => format!("f = {f}: sampling"),
        }
    }
}

impl StudyDir {
    /// Plans every run of the study `file`, read from `path`, and creates its folder. Nothing is created when the
    /// study cannot be run.
    ///
    /// # Errors
    /// When a run's config is wrong, or `root` is not empty.
    pub fn create(root: &Path, path: &Path, file: &StudyFile) -> Result<Self> {
        let runs = plan::plan(file, path, &absolute(root)?)?;
        let folder = Self::new(root)?;
        runs.iter().try_for_each(|run| run.write(&folder))?;
        // Written last: a folder with this file is complete.
        files::write_bytes(folder.path("study.yaml"), file.to_text().as_bytes())?;
        Ok(folder)
    }

    /// Creates an empty folder.
    fn new(root: &Path) -> Result<Self> {
        let taken = root.exists() && std::fs::read_dir(root).map_err(Error::io(root))?.next().is_some();
        if taken {
            bail!("{0}: expected an empty folder; try ldm compare-f --resume {0}", root.display());
        }
        std::fs::create_dir_all(root).map_err(Error::io(root))?;
        Ok(Self(absolute(root)?))
    }

    /// Opens the folder of an existing study.
    ///
    /// # Errors
    /// When it has no `study.yaml`.
    pub fn open(root: &Path) -> Result<Self> {
        if !root.join("study.yaml").is_file() {
            bail!("{}: expected the folder of a study, got one without study.yaml", root.display());
        }
        Ok(Self(absolute(root)?))
    }

    /// Returns its path.
    pub fn root(&self) -> &Path {
        &self.0
    }

    /// Returns the path of a file in it.
    pub fn path(&self, name: &str) -> PathBuf {
        self.0.join(name)
    }

    /// Returns the path of a file of one factor.
    pub(super) fn of(&self, f: i64, name: &str) -> PathBuf {
        self.0.join(format!("f{f}")).join(name)
    }

    /// Returns the file with the result of a part.
    pub(super) fn result(&self, part: StudyPart) -> PathBuf {
        match part {
            StudyPart::Reference => self.path("reference.json"),
            StudyPart::FirstStage(f) => self.of(f, "first-stage.json"),
            StudyPart::Diffusion(f) => self.of(f, "diffusion.json"),
            StudyPart::Sampling(f) => self.of(f, "sampling.json"),
        }
    }
}

/// Reads a result.
pub(super) fn read<T: DeserializeOwned>(path: &Path) -> Result<T> {
    let text = std::fs::read_to_string(path).map_err(Error::io(path))?;
    serde_json::from_str(&text).with_context(|| path.display().to_string())
}

/// Writes a result.
pub(super) fn write<T: Serialize>(path: &Path, value: &T) -> Result<()> {
    let text = serde_json::to_string_pretty(value).expect("plain values serialize");
    files::write_bytes(path, format!("{text}\n").as_bytes())
}

/// Returns an absolute path, for configs.
pub(super) fn absolute(path: &Path) -> Result<PathBuf> {
    std::path::absolute(path).map_err(Error::io(path))
}
