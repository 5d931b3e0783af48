//! Checks of a diffusion model against its previews and its data.

use ldm_conditioning::ConditionerConfig;
use ldm_core::{Error, Result};
use ldm_data::Dataset;
use ldm_pipelines::{ConditioningKey, ConditioningKind, LatentDiffusion, LatentDiffusionConfig};

/// Checks that previews of `model` can have this guidance `scale`, other than 1.
///
/// # Errors
/// [`Error::Invalid`] when the model has no unconditional form.
pub(crate) fn check_guidance(model: &LatentDiffusion, scale: f64) -> Result<()> {
    let key = "train.samples.guidance_scale";
    match model.config.conditioning_key() {
        Some(ConditioningKey::Crossattn | ConditioningKey::Hybrid) => {
            if matches!(model.config.cond_stage_config, ConditionerConfig::Identity) {
                return Ok(()); // the unconditional embedding is zero
            }
            model.conditioner.unconditional(1).map(drop).map_err(|error| match error {
                Error::Invalid(message) => Error::expected(key, format!("1, as {message}"), scale),
                other => other,
            })
        }
        _ => Err(Error::expected(key, "1, as the model has no unconditional form", scale)),
    }
}

/// Checks that the class numbers of a dataset, images, boxes or label maps, are those of a model.
///
/// # Errors
/// [`Error::Invalid`] with the model's key.
pub fn check_classes(config: &LatentDiffusionConfig, data: &dyn Dataset) -> Result<()> {
    let [classes, boxes, labels] =
        [data.classes(), data.box_classes(), data.label_classes()].map(|names| names.len() as i64);
    let below = |key: &str, count: i64, of: i64| {
        if count <= of {
            return Ok(());
        }
        Err(Error::expected(
            format!("model.params.{key}"),
            format!("at least the data's {count} classes"),
            of,
        ))
    };
    match ConditioningKind::of(config) {
        ConditioningKind::Class => {
            let Some(class) = config.class() else {
                return below("unet_config.params.num_classes", classes, config.classes().unwrap_or(classes));
            };
            below("cond_stage_config.params.n_classes", classes, class.n_classes)?;
            let null = class.null_class.or_else(|| (class.n_classes == 1001).then_some(1000));
            match null {
                Some(null) if null < classes => Err(Error::expected(
                    "model.params.cond_stage_config.params.null_class",
                    format!("a class beside the data's, 0 to {}", classes - 1),
                    null,
                )),
                _ => Ok(()),
            }
        }
        ConditioningKind::Layout => {
            let tokens = match &config.cond_stage_config {
                ConditionerConfig::Transformer(transformer) => transformer.vocab_size,
                ConditionerConfig::Bert(bert) => bert.vocab_size,
                _ => return Ok(()),
            };
            // The last token is the null token.
            below("cond_stage_config.params.vocab_size, without the null token", boxes, tokens - 1)
        }
        ConditioningKind::SemanticMap => {
            below("cond_stage_config.params.in_channels", labels, config.map_classes().unwrap_or(labels))
        }
        _ => Ok(()),
    }
}
