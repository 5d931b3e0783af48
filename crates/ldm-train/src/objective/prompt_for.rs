//! Prompts of training batches. CompVis `ddpm.py` `get_input`.

use ldm_core::{Error, Prompt, Result, upload};
use ldm_data::Batch;
use ldm_pipelines::{ConditioningKey, ConditioningKind, LatentDiffusion};
use tch::Tensor;

use crate::latents::one_hot;

/// Selects from a batch the prompt that `model` is conditioned on. Label maps are converted to one-hot maps; for
/// inpainting the image defaults to the batch's own. Images and maps are on the model's device; classes and tokens stay
/// on the CPU, where conditioners check them.
///
/// # Errors
/// [`Error::Data`] with an image and its missing condition; [`Error::Invalid`] when a label map has a class that the
/// model does not have.
pub fn prompt_for(model: &LatentDiffusion, batch: &Batch) -> Result<Prompt> {
    let missing = |what: &str| {
        let name = batch.names.first().map_or("the data", String::as_str);
        Error::data(name, format!("expected {what}, which the model is conditioned on, got none"))
    };
    let prompt = &batch.prompt;
    let required = |tensor: &Option<Tensor>, what: &str| -> Result<Option<Tensor>> {
        tensor.as_ref().map(|tensor| Some(tensor.shallow_clone())).ok_or_else(|| missing(what))
    };
    let tokens = || prompt.tokens.as_ref().map(Tensor::shallow_clone);
    let text = || match (&prompt.text, tokens()) {
        (None, None) => Err(missing("a caption")),
        (text, tokens) => Ok(Prompt { text: text.clone(), tokens, ..Prompt::default() }),
    };
    let image = || -> Result<Option<Tensor>> {
        let image = prompt.image.as_ref().or((batch.images.numel() > 0).then_some(&batch.images));
        image.ok_or_else(|| missing("an image")).map(|image| Some(image.shallow_clone()))
    };
    let inpainting = || -> Result<Prompt> {
        Ok(Prompt { image: image()?, mask: required(&prompt.mask, "a mask")?, ..Prompt::default() })
    };
    let of = |kind: ConditioningKind| -> Result<Prompt> {
        Ok(match kind {
            ConditioningKind::Unconditional => Prompt::default(),
            ConditioningKind::Class => {
                Prompt { class: required(&prompt.class, "a class")?, ..Prompt::default() }
            }
            ConditioningKind::Text => text()?,
            ConditioningKind::Layout => match (&prompt.layout, tokens()) {
                (None, None) => return Err(missing("boxes")),
                (layout, tokens) => {
                    let (layout, crops) = (layout.clone(), prompt.crops.clone());
                    Prompt { layout, crops, tokens, ..Prompt::default() }
                }
            },
            ConditioningKind::LowResolution => {
                Prompt { image: required(&prompt.image, "a low-resolution image")?, ..Prompt::default() }
            }
            ConditioningKind::SemanticMap => match (&prompt.mask, &batch.label_map, &prompt.image) {
                (None, Some(map), _) => Prompt { mask: Some(one_hot_of(map, model)?), ..Prompt::default() },
                (None, None, Some(image)) => {
                    Prompt { image: Some(image.shallow_clone()), ..Prompt::default() }
                }
                _ => Prompt { mask: required(&prompt.mask, "a label map")?, ..Prompt::default() },
            },
            ConditioningKind::Inpainting => inpainting()?,
            ConditioningKind::TextInpainting => {
                let Prompt { text, tokens, .. } = text()?;
                Prompt { text, tokens, ..inpainting()? }
            }
            ConditioningKind::ClipImage => Prompt { image: image()?, ..Prompt::default() },
            ConditioningKind::Embedding => {
                Prompt { embedding: required(&prompt.embedding, "an embedding")?, ..Prompt::default() }
            }
            ConditioningKind::Hybrid => unreachable!("its parts are of other kinds"),
        })
    };
    let prompt = match ConditioningKind::hybrid_parts(&model.config) {
        None => of(ConditioningKind::of(&model.config))?,
        Some([concatenated, attended]) => {
            let Prompt { image, mask, .. } = of(concatenated)?;
            Prompt { image, mask, ..of(attended)? }
        }
    };
    let place = |slot: Option<Tensor>| slot.map(|tensor| upload(&tensor, model.vs().device()));
    Ok(Prompt { image: place(prompt.image), mask: place(prompt.mask), ..prompt })
}

/// True if the condition of `model` is computed from the image, so that cached latents are not enough.
pub(crate) fn conditions_on_image(model: &LatentDiffusion) -> bool {
    matches!(
        ConditioningKind::of(&model.config),
        ConditioningKind::Inpainting | ConditioningKind::TextInpainting | ConditioningKind::ClipImage
    )
}

/// Checks that conditions of `model` can be dropped in training.
///
/// # Errors
/// [`Error::Invalid`] when the model has no null condition.
pub(crate) fn check_dropout(model: &LatentDiffusion) -> Result<()> {
    let refuse =
        |reason: &str| Err(Error::invalid(format!("train.conditioning_dropout: expected 0, {reason}")));
    match (ConditioningKind::of(&model.config), model.config.conditioning_key()) {
        (ConditioningKind::Unconditional, _) => refuse("as the model is unconditional"),
        (ConditioningKind::Class, Some(ConditioningKey::Adm)) => refuse("as the model has no null class"),
        (ConditioningKind::Inpainting | ConditioningKind::LowResolution | ConditioningKind::ClipImage, _) => {
            refuse("as the model is conditioned on an image and has no null image")
        }
        // The null embedding is zero.
        (ConditioningKind::Embedding, _) => Ok(()),
        _ => model.conditioner.null_prompt(1).map(drop),
    }
}

/// Converts `[B, H, W]` classes to one-hot `[B, K, H, W]` on the model's device.
fn one_hot_of(map: &Tensor, model: &LatentDiffusion) -> Result<Tensor> {
    let labels = model.config.map_classes().expect("a model of label maps has a spatial rescaler");
    one_hot("label map", map, labels, model.vs().device())
}
