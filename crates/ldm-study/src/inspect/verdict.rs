//! The architecture of weights.

use std::fmt::{self, Display};

use ldm_pipelines::{Classifier, LoadOptions, Model, ModelConfig, ModelSource};
use serde_json::{Map, Value, json};
use tch::Device;

use super::contents::WeightsContents;
use super::describe;
use super::fit::{self, Misfit};

/// The architecture of weights, and whether they fit it.
#[derive(Debug)]
pub(super) struct Verdict {
    pub(super) architecture: String,
    /// The inferred config, in the absence of a config file.
    pub(super) derived: Option<Value>,
    pub(super) fits: Option<Result<(), Misfit>>,
    pub(super) notes: Vec<String>,
}

impl Verdict {
    /// Creates the verdict on an architecture of which only the name is known.
    pub(super) fn only(architecture: impl Into<String>) -> Self {
        Self { architecture: architecture.into(), derived: None, fits: None, notes: Vec::new() }
    }

    /// Builds the model with its weights memory-mapped and never read.
    pub(super) fn of(found: &ModelSource, derived: bool) -> Self {
        let ModelSource { config, checkpoint, .. } = found;
        let kind = WeightsContents::of(checkpoint).kind;
        let fits = match config {
            ModelConfig::Classifier(config) => {
                Classifier::load(config, checkpoint.clone(), Device::Cpu).map(drop)
            }
            config => {
                let options = LoadOptions { kind, ..LoadOptions::new(Device::Cpu) };
                Model::load(config, checkpoint.clone(), None, &options).map(drop)
            }
        };
        Self {
            architecture: describe::model(config),
            derived: derived.then(|| json!({"model": config})),
            fits: Some(fits.map_err(Misfit::from)),
            notes: found.notes.clone(),
        }
    }

    pub(super) fn document(&self) -> Map<String, Value> {
        let mut fields = fit::document(self.fits.as_ref());
        fields.insert("architecture".into(), self.architecture.as_str().into());
        fields.insert("derived".into(), json!(self.derived));
        fields.insert("notes".into(), json!(self.notes));
        fields
    }
}

impl Display for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "architecture  {}", self.architecture)?;
        if let Some(fits) = &self.fits {
            fit::write(f, fits)?;
        }
        self.notes.iter().try_for_each(|note| writeln!(f, "note          {note}"))
    }
}
