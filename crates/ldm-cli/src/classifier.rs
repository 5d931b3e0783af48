//! The guiding classifier of the flags.

use anyhow::{Context, bail};
use ldm::NamedClassifier;
use ldm_pipelines::LatentDiffusion;

use crate::args::ClassifierArgs;
use crate::progress::Printer;

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

/// Opens the classifier of the flags, if any, and checks that it fits `model`.
pub(crate) fn open(
    args: &ClassifierArgs,
    model: &LatentDiffusion,
) -> anyhow::Result<Option<NamedClassifier>> {
    let Some(path) = &args.classifier else { return Ok(None) };
    let scale = args.classifier_scale.unwrap_or(1.);
    Ok(Some(NamedClassifier::open(path, scale, model, &mut Printer::warn).context("--classifier")?))
}
