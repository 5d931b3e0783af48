//! The guiding classifier of the flags.

use anyhow::{Context, bail};
use ldm_pipelines::{Classifier, GuidingClassifier, LatentDiffusion, LoadOptions};
use serde_json::{Value, json};

use crate::args::ClassifierArgs;
use crate::model;
use crate::progress::Printer;

/// A guiding classifier, with its name in `parameters` and JSON lines.
pub(crate) struct NamedClassifier {
    /// The last part of its path, like the name of a model in `parameters`.
    name: String,
    guiding: GuidingClassifier,
}

/// Checks the flags for contradictions, before a model is opened.
pub(crate) fn check(args: &ClassifierArgs, classes: &[String]) -> anyhow::Result<()> {
    match (&args.classifier, args.classifier_scale) {
        (None, Some(_)) => bail!("--classifier-scale: expected --classifier too, got none"),
        (_, Some(scale)) if !scale.is_finite() => {
            bail!("--classifier-scale: expected a finite number, got {scale}")
        }
        (Some(_), _) if classes.is_empty() => bail!("--classifier: expected --class too, got none"),
        _ => Ok(()),
    }
}

impl NamedClassifier {
    /// Opens the classifier of the flags, if any, and checks that it fits `model`.
    pub(crate) fn open(args: &ClassifierArgs, model: &LatentDiffusion) -> anyhow::Result<Option<Self>> {
        let Some(path) = &args.classifier else { return Ok(None) };
        let options = LoadOptions::new(model.vs().device());
        let classifier = Classifier::open(path, &options, &mut Printer::warn).context("--classifier")?;
        let scale = args.classifier_scale.unwrap_or(1.);
        let guiding = GuidingClassifier::new(classifier, scale, model).context("--classifier")?;
        let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        Ok(Some(Self { name, guiding }))
    }

    /// Returns the classifier with its scale.
    pub(crate) fn guiding(&self) -> &GuidingClassifier {
        &self.guiding
    }

    /// Parses a class, by the names of the classifier.
    pub(crate) fn class(&self, word: &str) -> anyhow::Result<i64> {
        let classifier = self.guiding.classifier();
        model::class(word, &classifier.classes, classifier.num_classes())
    }

    /// Refuses a class of the model that the classifier does not have.
    pub(crate) fn check_class(&self, class: i64) -> anyhow::Result<()> {
        let count = self.guiding.classifier().num_classes();
        if class < count {
            return Ok(());
        }
        bail!("--class: expected 0 to {}, the classes of the classifier, got {class}", count - 1)
    }

    /// Returns the name of a class, if the classifier's file has names.
    pub(crate) fn class_name(&self, class: i64) -> Option<&String> {
        self.guiding.classifier().classes.get(class as usize)
    }

    /// Returns the part of `parameters` about the classifier.
    pub(crate) fn parameters(&self) -> String {
        format!(", Classifier: {}, Classifier scale: {}", self.name, self.guiding.scale())
    }

    /// Returns the fields of a JSON line about the classifier.
    pub(crate) fn json(&self) -> [(String, Value); 2] {
        [("classifier".into(), json!(self.name)), ("classifier_scale".into(), json!(self.guiding.scale()))]
    }
}
