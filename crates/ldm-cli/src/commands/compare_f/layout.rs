//! Where the things of a study lie.

use std::path::{Path, PathBuf};

use anyhow::{Context, bail};
use ldm_core::files;
use serde::Serialize;
use serde::de::DeserializeOwned;

/// ```text
/// DIR/study.yaml              what was asked
/// DIR/reference.json          the real images, and how far others of them are
/// DIR/f4/first-stage.yaml     the runs' configs, complete: `ldm train` takes them too
/// DIR/f4/diffusion.yaml
/// DIR/f4/first-stage/         the runs
/// DIR/f4/diffusion/
/// DIR/f4/points.jsonl         a line a measurement along the training
/// DIR/f4/first-stage.json     what is done: a part that has one is not done again
/// DIR/f4/diffusion.json
/// DIR/f4/sampling.json
/// DIR/f4/*.png                reconstructions, samples
/// DIR/results.json, results.csv, first-stages.csv, *.svg, report.html
/// ```
#[derive(Debug)]
pub(crate) struct Folder(PathBuf);

/// What is done by a process of its own, so that its peak of memory is its own too.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Part {
    Reference,
    FirstStage(i64),
    Diffusion(i64),
    Sampling(i64),
}

impl Part {
    /// As in `--part`.
    pub(crate) fn name(self) -> String {
        match self {
            Self::Reference => "reference".into(),
            Self::FirstStage(f) => format!("{f}/first-stage"),
            Self::Diffusion(f) => format!("{f}/diffusion"),
            Self::Sampling(f) => format!("{f}/sampling"),
        }
    }

    /// From `--part`.
    pub(crate) fn parse(name: &str) -> anyhow::Result<Self> {
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
                .with_context(|| format!("--part: no part of a study: {name}")),
        }
    }

    /// As a person is told.
    pub(crate) fn title(self) -> String {
        match self {
            Self::Reference => "the real images".into(),
            Self::FirstStage(f) => format!("f = {f}: first stage"),
            Self::Diffusion(f) => format!("f = {f}: diffusion"),
            Self::Sampling(f) => format!("f = {f}: sampling"),
        }
    }
}

impl Folder {
    /// A new one.
    pub(crate) fn create(root: &Path) -> anyhow::Result<Self> {
        let taken = root.exists()
            && std::fs::read_dir(root).with_context(|| root.display().to_string())?.next().is_some();
        if taken {
            bail!("{0}: exists; go on with it: ldm compare-f --resume {0}", root.display());
        }
        std::fs::create_dir_all(root).with_context(|| root.display().to_string())?;
        Ok(Self(absolute(root)?))
    }

    /// One that is there.
    pub(crate) fn open(root: &Path) -> anyhow::Result<Self> {
        if !root.join("study.yaml").is_file() {
            bail!("{}: not the folder of a study: it has no study.yaml", root.display());
        }
        Ok(Self(absolute(root)?))
    }

    pub(crate) fn root(&self) -> &Path {
        &self.0
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.0.join(name)
    }

    /// Of one factor.
    pub(crate) fn of(&self, f: i64, name: &str) -> PathBuf {
        self.0.join(format!("f{f}")).join(name)
    }

    /// Where the numbers of a part are.
    pub(crate) fn done(&self, part: Part) -> PathBuf {
        match part {
            Part::Reference => self.path("reference.json"),
            Part::FirstStage(f) => self.of(f, "first-stage.json"),
            Part::Diffusion(f) => self.of(f, "diffusion.json"),
            Part::Sampling(f) => self.of(f, "sampling.json"),
        }
    }
}

/// Reads a part's numbers.
pub(crate) fn read<T: DeserializeOwned>(path: &Path) -> anyhow::Result<T> {
    let text = std::fs::read_to_string(path).with_context(|| path.display().to_string())?;
    serde_json::from_str(&text).with_context(|| path.display().to_string())
}

/// Writes them, whole or not at all.
pub(crate) fn write<T: Serialize>(path: &Path, value: &T) -> anyhow::Result<()> {
    let text = serde_json::to_string_pretty(value).expect("plain numbers and words");
    Ok(files::write_bytes(path, format!("{text}\n").as_bytes())?)
}

/// A path that stands wherever it is read: it is written into configs.
pub(crate) fn absolute(path: &Path) -> anyhow::Result<PathBuf> {
    std::path::absolute(path).with_context(|| path.display().to_string())
}
