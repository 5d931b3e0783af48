//! From typed words to a model that a classifier guides.

use anyhow::{Context, bail};
use ldm_pipelines::{Classifier, LatentDiffusion, LoadOptions};
use serde_json::{Value, json};

use crate::args::ClassifierArgs;
use crate::model;
use crate::progress::Printer;

/// What a classifier adds to images and to what is said of them.
pub(crate) struct Leading {
    /// The last part of its path, as models are called in `parameters`.
    name: String,
    classes: Vec<String>,
    count: i64,
    scale: f64,
}

/// Refuses, before a model is opened, what no classifier can make good.
pub(crate) fn check(args: &ClassifierArgs, asked: &[String]) -> anyhow::Result<()> {
    match (&args.classifier, args.classifier_scale) {
        (None, Some(_)) => bail!("--classifier-scale: give --classifier, which it is the scale of"),
        (_, Some(scale)) if !scale.is_finite() => {
            bail!("--classifier-scale: expected a number, got: {scale}")
        }
        (Some(_), _) if asked.is_empty() => bail!("--classifier: give --class, which it is to lead to"),
        _ => Ok(()),
    }
}

impl Leading {
    /// Has the classifier asked for, if any, guide `model`.
    pub(crate) fn of(args: &ClassifierArgs, model: &mut LatentDiffusion) -> anyhow::Result<Option<Self>> {
        let Some(path) = &args.classifier else { return Ok(None) };
        let how = LoadOptions::new(model.vs().device());
        let classifier = Classifier::open(path, &how, &mut Printer::warn).context("--classifier")?;
        let (classes, count) = (classifier.classes.clone(), classifier.num_classes());
        let scale = args.classifier_scale.unwrap_or(1.);
        model.with_classifier_guidance(classifier, scale).context("--classifier")?;
        let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        Ok(Some(Self { name, classes, count, scale }))
    }

    /// The class a word names, to a model that is told none itself.
    pub(crate) fn class(&self, word: &str) -> anyhow::Result<i64> {
        model::class(word, &self.classes, self.count)
    }

    /// Refuses a class of the model that the classifier lacks.
    pub(crate) fn knows(&self, class: i64) -> anyhow::Result<()> {
        if class < self.count {
            return Ok(());
        }
        bail!("--class: the classifier knows the classes 0 to {}, got: {class}", self.count - 1)
    }

    /// The name of a class, where the classifier's file says it.
    pub(crate) fn class_name(&self, class: i64) -> Option<&String> {
        self.classes.get(class as usize)
    }

    /// What `parameters` of an image says of it.
    pub(crate) fn parameters(&self) -> String {
        format!(", Classifier: {}, Classifier scale: {}", self.name, self.scale)
    }

    /// What a JSON line says of it.
    pub(crate) fn json(&self) -> [(String, Value); 2] {
        [("classifier".into(), json!(self.name)), ("classifier_scale".into(), json!(self.scale))]
    }
}
