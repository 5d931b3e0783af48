//! Checks of a diffusion model against its previews and its data.

use ldm_autoencoder::ImageKind;
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

/// Checks that the class numbers of a dataset, images, boxes or label maps, are those of a model. Label maps are compared
/// by the names of their labels, [`check_label_maps`] reads them.
///
/// # Errors
/// [`Error::Invalid`] with the model's key.
pub fn check_classes(config: &LatentDiffusionConfig, data: &dyn Dataset) -> Result<()> {
    kinds(config).into_iter().try_for_each(|kind| check_kind(kind, config, data))
}

/// The kinds of the conditions of a model, of which a hybrid one has two.
fn kinds(config: &LatentDiffusionConfig) -> Vec<ConditioningKind> {
    ConditioningKind::hybrid_parts(config).map_or_else(|| vec![ConditioningKind::of(config)], Vec::from)
}

fn check_kind(kind: ConditioningKind, config: &LatentDiffusionConfig, data: &dyn Dataset) -> Result<()> {
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
    // A hybrid conditioner has the keys of its parts.
    let key = |part: &str, key: &str| match &config.cond_stage_config {
        ConditionerConfig::Hybrid(_) => format!("cond_stage_config.params.{part}.params.{key}"),
        _ => format!("cond_stage_config.params.{key}"),
    };
    let attended = |of: &str| key("c_crossattn_config", of);
    match kind {
        ConditioningKind::Class => {
            let Some(class) = config.class() else {
                return below("unet_config.params.num_classes", classes, config.classes().unwrap_or(classes));
            };
            below(&attended("n_classes"), classes, class.n_classes)?;
            let null = class.null_class.or_else(|| (class.n_classes == 1001).then_some(1000));
            match null {
                Some(null) if null < classes => Err(Error::expected(
                    format!("model.params.{}", attended("null_class")),
                    format!("a class beside the data's, 0 to {}", classes - 1),
                    null,
                )),
                _ => Ok(()),
            }
        }
        ConditioningKind::Layout => {
            let conditioner = match &config.cond_stage_config {
                ConditionerConfig::Hybrid(hybrid) => &*hybrid.c_crossattn_config,
                other => other,
            };
            let tokens = match conditioner {
                ConditionerConfig::Transformer(transformer) => transformer.vocab_size,
                ConditionerConfig::Bert(bert) => bert.vocab_size,
                _ => return Ok(()),
            };
            // The last token is the null token.
            below(&attended("vocab_size, without the null token"), boxes, tokens - 1)
        }
        ConditioningKind::SemanticMap => {
            let of = config.map_classes().unwrap_or(labels);
            below(&key("c_concat_config", "in_channels"), labels, of)
        }
        _ => Ok(()),
    }
}

/// Checks that the label maps of a dataset have only labels that a model is conditioned on or encodes; all of them are
/// read.
///
/// # Errors
/// [`Error::Data`] with a map, its label and the pixel.
pub fn check_label_maps(config: &LatentDiffusionConfig, data: &dyn Dataset) -> Result<()> {
    let condition = config.map_classes().filter(|_| kinds(config).contains(&ConditioningKind::SemanticMap));
    let encoded = match config.input() {
        ImageKind::LabelMap(labels) => Some(labels),
        ImageKind::Pixels(_) => None,
    };
    let least = condition.into_iter().chain(encoded).min();
    least.map_or(Ok(()), |count| data.check_labels(count).map(drop))
}
