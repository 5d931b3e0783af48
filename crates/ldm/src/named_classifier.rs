//! A guiding classifier with its name.

use std::path::Path;

use ldm_core::{Error, Result};
use ldm_pipelines::{Classifier, GuidingClassifier, LatentDiffusion, LoadOptions};
use serde_json::{Value, json};

/// A guiding classifier, with its name in `parameters` and JSON lines.
#[derive(Debug)]
pub struct NamedClassifier {
    /// The last part of its path, like the name of a model in `parameters`.
    name: String,
    guiding: GuidingClassifier,
}

impl NamedClassifier {
    /// Opens the classifier at `path` for guiding `model`; `note` receives warnings.
    ///
    /// # Errors
    /// Those of [`Classifier::open`], and of [`GuidingClassifier::new`] when it does not fit the model.
    pub fn open(
        path: &Path,
        scale: f64,
        model: &LatentDiffusion,
        note: &mut dyn FnMut(&str),
    ) -> Result<Self> {
        let classifier = Classifier::open(path, &LoadOptions::new(model.vs().device()), note)?;
        let guiding = GuidingClassifier::new(classifier, scale, model)?;
        let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        Ok(Self { name, guiding })
    }

    /// Returns the classifier with its scale.
    pub fn guiding(&self) -> &GuidingClassifier {
        &self.guiding
    }

    /// Parses a class, by the names of the classifier.
    ///
    /// # Errors
    /// As [`parse_class`].
    pub fn class(&self, word: &str) -> Result<i64> {
        let classifier = self.guiding.classifier();
        parse_class(word, &classifier.classes, classifier.num_classes())
    }

    /// Refuses a class of the model that the classifier does not have.
    ///
    /// # Errors
    /// [`Error::Invalid`] for such a class.
    pub fn check_class(&self, class: i64) -> Result<()> {
        let count = self.guiding.classifier().num_classes();
        if class < count {
            return Ok(());
        }
        let expected = format!("0 to {}, the classes of the classifier", count - 1);
        Err(Error::expected("--class", expected, class))
    }

    /// Returns the name of a class, if the classifier's file has names.
    pub fn class_name(&self, class: i64) -> Option<&String> {
        self.guiding.classifier().classes.get(class as usize)
    }

    /// Returns the part of `parameters` about the classifier.
    pub fn parameters(&self) -> String {
        format!(", Classifier: {}, Classifier scale: {}", self.name, self.guiding.scale())
    }

    /// Returns the fields of a JSON line about the classifier.
    pub fn json(&self) -> [(String, Value); 2] {
        [("classifier".into(), json!(self.name)), ("classifier_scale".into(), json!(self.guiding.scale()))]
    }
}

/// Parses a class: one of `names`, or a number below `count`.
///
/// # Errors
/// [`Error::Invalid`] for another word.
pub fn parse_class(word: &str, names: &[String], count: i64) -> Result<i64> {
    if let Some(index) = names.iter().position(|name| name == word) {
        return Ok(index as i64);
    }
    let number: Option<i64> = word.parse().ok();
    number.filter(|number| (0..count).contains(number)).ok_or_else(|| {
        let known =
            if names.is_empty() { String::new() } else { format!(", or one of {}", names.join(", ")) };
        Error::expected("--class", format!("0 to {}{known}", count - 1), word)
    })
}
