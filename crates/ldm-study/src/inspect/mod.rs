//! Inspection of files: the contents of a checkpoint, a model folder, a run or a PNG, without running code from it and
//! without reading a weight.

mod component;
mod contents;
mod describe;
mod detect;
mod fit;
mod png;
mod verdict;

use std::fmt::{self, Display};
use std::path::{Path, PathBuf};

use ldm_checkpoint::Checkpoint;
use ldm_core::Result;
use ldm_pipelines::{ModelSource, weights_file};
use ldm_weights::sha256;
use serde_json::{Map, Value, json};

use crate::context::bail;
use contents::WeightsContents;
use verdict::Verdict;

pub use png::PngReport;

/// The contents of a file or folder.
#[derive(Debug)]
pub enum Inspection {
    /// A PNG.
    Image(PngReport),
    /// A file of weights.
    Weights(Box<WeightsReport>),
    /// A diffusers folder.
    Folder(FolderReport),
}

/// Inspects a checkpoint, a model folder, a run, or a PNG. The names and shapes of weights are compared with `config`,
/// or else with a config next to them, or with the architecture that they imply.
///
/// # Errors
/// When the path does not exist, is none of these, or is damaged.
pub fn inspect(path: &Path, config: Option<&Path>) -> Result<Inspection> {
    if path.is_file() && png::is_png(path)? {
        return PngReport::of(path).map(Inspection::Image);
    }
    if config.is_none() && path.join("model_index.json").is_file() {
        return FolderReport::of(path).map(Inspection::Folder);
    }
    let report = WeightsReport::of(&weights_file(path)?, config)?;
    Ok(Inspection::Weights(Box::new(report)))
}

impl Inspection {
    /// Returns the text for the terminal.
    ///
    /// # Errors
    /// When a PNG has no text.
    pub fn text(&self) -> Result<String> {
        match self {
            Self::Image(report) => report.text(),
            Self::Weights(report) => Ok(report.to_string()),
            Self::Folder(report) => Ok(report.to_string()),
        }
    }

    /// Returns a JSON document.
    pub fn document(&self) -> Value {
        match self {
            Self::Image(report) => json!(report),
            Self::Weights(report) => Value::Object(report.document()),
            Self::Folder(report) => report.document(),
        }
    }
}

/// A diffusers folder: the model as a whole, and its parts.
#[derive(Debug)]
pub struct FolderReport {
    path: PathBuf,
    whole: Verdict,
    parts: Vec<WeightsReport>,
}

impl FolderReport {
    fn of(path: &Path) -> Result<Self> {
        let parts = component::parts(path)?;
        if parts.is_empty() {
            bail!("{}: expected a diffusers folder with weights, got one without", path.display());
        }
        let parts = parts.iter().map(|weights| WeightsReport::of(weights, None)).collect::<Result<_>>()?;
        let whole = match ModelSource::find(path, None, true) {
            Ok(found) => Verdict::of(&found, true),
            Err(error) => Verdict::only(format!("no latent diffusion model as a whole: {error}")),
        };
        Ok(Self { path: path.to_path_buf(), whole, parts })
    }

    fn document(&self) -> Value {
        let mut document = Map::from_iter([("path".into(), json!(self.path))]);
        document.extend(self.whole.document());
        let parts: Vec<Value> = self.parts.iter().map(|part| Value::Object(part.document())).collect();
        document.insert("parts".into(), parts.into());
        Value::Object(document)
    }
}

impl Display for FolderReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}\n{}", self.path.display(), self.whole)?;
        self.parts.iter().try_for_each(|part| write!(f, "\n{part}"))
    }
}

/// A file of weights.
#[derive(Debug)]
pub struct WeightsReport {
    checkpoint: Checkpoint,
    sha256: String,
    contents: WeightsContents,
    /// The config it was compared with.
    config: Option<PathBuf>,
    verdict: Verdict,
}

impl WeightsReport {
    fn of(weights: &Path, config: Option<&Path>) -> Result<Self> {
        let checkpoint = Checkpoint::open(weights)?;
        let candidates = [weights.with_extension("yaml"), weights.with_file_name("config.yaml")];
        let config =
            config.map(Path::to_path_buf).or_else(|| candidates.into_iter().find(|path| path.is_file()));
        let verdict = match &config {
            Some(config) => Verdict::of(&ModelSource::find(weights, Some(config), true)?, false),
            None => detected(weights, &checkpoint)?,
        };
        let contents = WeightsContents::of(&checkpoint);
        Ok(Self { sha256: sha256(weights)?, checkpoint, contents, config, verdict })
    }

    fn document(&self) -> Map<String, Value> {
        let Self { checkpoint, contents, .. } = self;
        let mut fields = self.verdict.document();
        fields.extend([
            ("path".into(), json!(checkpoint.path())),
            ("format".into(), json!(checkpoint.format().to_string())),
            ("sha256".into(), json!(self.sha256)),
            ("config".into(), json!(self.config)),
            ("tensors".into(), json!(contents.tensors)),
            ("parameters".into(), json!(contents.parameters)),
            ("parts".into(), json!(contents.parts)),
            ("dtypes".into(), json!(contents.dtypes)),
            ("ema".into(), json!(checkpoint.has_ema())),
            ("metadata".into(), json!(checkpoint.metadata())),
        ]);
        fields
    }
}

impl Display for WeightsReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { checkpoint, contents, verdict, .. } = self;
        writeln!(f, "{}", checkpoint.path().display())?;
        writeln!(f, "format        {}", checkpoint.format())?;
        writeln!(f, "sha256        {}", self.sha256)?;
        write!(f, "{verdict}")?;
        writeln!(f, "tensors       {} ({} parameters)", contents.tensors, grouped(contents.parameters))?;
        for (part, count) in &contents.parts {
            writeln!(f, "  {part:24} {:>14}", grouped(*count))?;
        }
        let dtypes: Vec<String> =
            contents.dtypes.iter().map(|(name, count)| format!("{name} {count}")).collect();
        writeln!(f, "dtypes        {}", dtypes.join(", "))?;
        writeln!(
            f,
            "ema           {}",
            if checkpoint.has_ema() { "yes, next to the weights" } else { "no copy" }
        )?;
        for (key, value) in checkpoint.metadata() {
            writeln!(f, "{key:13} {value}")?;
        }
        Ok(())
    }
}

/// Returns the verdict on a file without an ldm config: by the `config.json` next to it, else by its names and
/// shapes.
fn detected(weights: &Path, checkpoint: &Checkpoint) -> Result<Verdict> {
    if let Some(verdict) = component::verdict(weights, checkpoint)? {
        return Ok(verdict);
    }
    Ok(match ModelSource::find(weights, None, true) {
        Ok(found) => Verdict::of(&found, true),
        // Parts may be detectable even if the whole is not.
        Err(error) => {
            let mut verdict = detect::infer_config(&checkpoint.shapes());
            verdict.notes.extend(verdict.fits.is_some().then(|| error.to_string()));
            verdict
        }
    })
}

/// Groups digits: 12345678 → 12,345,678.
fn grouped(count: u64) -> String {
    let digits = count.to_string();
    let mut out = String::new();
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            out.push(',');
        }
        out.push(digit);
    }
    out
}
