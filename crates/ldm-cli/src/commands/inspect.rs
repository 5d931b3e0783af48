//! `ldm inspect`: what a file holds. Runs no code from it, and reads no weight.

mod component;
mod contents;
mod describe;
mod detect;
mod fit;
mod png;

use std::path::{Path, PathBuf};

use anyhow::bail;
use ldm_checkpoint::Checkpoint;
use ldm_pipelines::{Classifier, LoadOptions, Model, ModelConfig, ModelSource, weights_file};
use serde_json::{Map, Value, json};
use tch::Device;

use crate::args::InspectArgs;
use crate::weights::sha256;
use contents::Contents;
use fit::Misfit;

/// What something is, and whether its tensors are that.
struct Verdict {
    architecture: String,
    /// What a config would say, where none of ours says it.
    derived: Option<Value>,
    fits: Option<Result<(), Misfit>>,
    /// What else one may want to know.
    notes: Vec<String>,
}

/// All that is said of a file of weights.
struct Report {
    checkpoint: Checkpoint,
    sha256: String,
    contents: Contents,
    /// The config it was held against.
    config: Option<PathBuf>,
    verdict: Verdict,
}

pub(crate) fn run(args: &InspectArgs) -> anyhow::Result<()> {
    let path = &args.path;
    if path.is_file() && png::is_png(path)? {
        return png::print(path, args.json);
    }
    if args.config.is_none() && path.join("model_index.json").is_file() {
        return folder(path, args.json);
    }
    let report = Report::of(&weights_file(path)?, args.config.as_deref())?;
    if args.json {
        println!("{:#}", Value::Object(report.as_json()));
    } else {
        report.print();
    }
    Ok(())
}

/// A diffusers folder: the whole, then part by part.
fn folder(path: &Path, as_json: bool) -> anyhow::Result<()> {
    let parts = component::parts(path)?;
    if parts.is_empty() {
        bail!("{}: a diffusers folder without weights", path.display());
    }
    let reports = parts.iter().map(|weights| Report::of(weights, None)).collect::<Result<Vec<_>, _>>()?;
    let whole = match ModelSource::find(path, None, true) {
        Ok(found) => Verdict::of(&found, true),
        Err(error) => Verdict::only(format!("no latent diffusion model as a whole: {error}")),
    };
    if as_json {
        let mut document = Map::from_iter([("path".into(), json!(path))]);
        document.extend(whole.as_json());
        let parts: Vec<Value> = reports.iter().map(|part| Value::Object(part.as_json())).collect();
        document.insert("parts".into(), parts.into());
        println!("{:#}", Value::Object(document));
    } else {
        println!("{}", path.display());
        whole.print();
        for report in reports {
            println!();
            report.print();
        }
    }
    Ok(())
}

impl Verdict {
    /// Nothing is known but what it is called.
    fn only(architecture: impl Into<String>) -> Self {
        Self { architecture: architecture.into(), derived: None, fits: None, notes: Vec::new() }
    }

    /// Builds what was found, its weights the file's own pages, which nobody reads.
    fn of(found: &ModelSource, derived: bool) -> Self {
        let ModelSource { config, checkpoint, .. } = found;
        let kind = Contents::of(checkpoint).kind;
        let fits = match config {
            ModelConfig::Classifier(config) => {
                Classifier::load(config, checkpoint.clone(), Device::Cpu).map(drop)
            }
            config => Model::load(
                config,
                checkpoint.clone(),
                None,
                &LoadOptions { kind, ..LoadOptions::new(Device::Cpu) },
            )
            .map(drop),
        };
        Self {
            architecture: describe::model(config),
            derived: derived.then(|| json!({"model": config})),
            fits: Some(fits.map_err(Misfit::from)),
            notes: found.notes.clone(),
        }
    }

    fn print(&self) {
        println!("architecture  {}", self.architecture);
        if let Some(fits) = &self.fits {
            fit::print(fits);
        }
        for note in &self.notes {
            println!("note          {note}");
        }
    }

    fn as_json(&self) -> Map<String, Value> {
        let mut fields = fit::as_json(self.fits.as_ref());
        fields.insert("architecture".into(), self.architecture.as_str().into());
        fields.insert("derived".into(), json!(self.derived));
        fields.insert("notes".into(), json!(self.notes));
        fields
    }
}

impl Report {
    fn of(weights: &Path, config: Option<&Path>) -> anyhow::Result<Self> {
        let checkpoint = Checkpoint::open(weights)?;
        let beside = [weights.with_extension("yaml"), weights.with_file_name("config.yaml")];
        let config = config.map(Path::to_path_buf).or_else(|| beside.into_iter().find(|path| path.is_file()));
        let verdict = match &config {
            Some(config) => Verdict::of(&ModelSource::find(weights, Some(config), true)?, false),
            None => told(weights, &checkpoint)?,
        };
        let contents = Contents::of(&checkpoint);
        Ok(Self { sha256: sha256(weights)?, checkpoint, contents, config, verdict })
    }

    fn print(&self) {
        let Self { checkpoint, contents, verdict, .. } = self;
        println!("{}", checkpoint.path().display());
        println!("format        {}", checkpoint.format());
        println!("sha256        {}", self.sha256);
        verdict.print();
        println!("tensors       {} ({} parameters)", contents.tensors, grouped(contents.parameters));
        for (part, count) in &contents.parts {
            println!("  {part:24} {:>14}", grouped(*count));
        }
        let dtypes: Vec<String> =
            contents.dtypes.iter().map(|(name, count)| format!("{name} {count}")).collect();
        println!("dtypes        {}", dtypes.join(", "));
        println!(
            "ema           {}",
            if checkpoint.has_ema() { "yes, beside the weights" } else { "no copy" }
        );
        for (key, value) in checkpoint.metadata() {
            println!("{key:13} {value}");
        }
    }

    fn as_json(&self) -> Map<String, Value> {
        let Self { checkpoint, contents, .. } = self;
        let mut fields = self.verdict.as_json();
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

/// What a file is that has no config of ours: by the `config.json` beside it, else by its names and shapes.
fn told(weights: &Path, checkpoint: &Checkpoint) -> anyhow::Result<Verdict> {
    if let Some(verdict) = component::verdict(weights, checkpoint)? {
        return Ok(verdict);
    }
    Ok(match ModelSource::find(weights, None, true) {
        Ok(found) => Verdict::of(&found, true),
        // Where the whole cannot be told, its parts may be.
        Err(error) => {
            let mut verdict = detect::infer_config(&checkpoint.shapes());
            verdict.notes.extend(verdict.fits.is_some().then(|| error.to_string()));
            verdict
        }
    })
}

/// 12345678 → 12,345,678.
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
