//! The condition of a diffusion model, from a batch. CompVis `ddpm.py` `get_input`.

use ldm_conditioning::ConditionerConfig;
use ldm_core::{Error, Prompt, Result};
use ldm_data::Batch;
use ldm_pipelines::{ConditioningKey, ConditioningKind, LatentDiffusion};
use tch::{Device, Kind, Tensor};

/// Returns the part of a batch that `model` is conditioned on, and nothing else of it. Label maps become one-hot; the image
/// to inpaint is the image itself.
///
/// # Errors
/// [`Error::Data`] naming an image and the condition it lacks; [`Error::Invalid`] when a label map has a class that the model
/// does not have.
pub fn prompt_for(model: &LatentDiffusion, batch: &Batch) -> Result<Prompt> {
    let lacks = |what: &str| {
        let name = batch.names.first().map_or("the data", String::as_str);
        Error::data(name, format!("expected {what}, which the model is conditioned on, got none"))
    };
    let prompt = &batch.prompt;
    let own = |tensor: &Option<Tensor>, what: &str| -> Result<Option<Tensor>> {
        tensor.as_ref().map(|tensor| Some(tensor.shallow_clone())).ok_or_else(|| lacks(what))
    };
    let own_tokens = || prompt.tokens.as_ref().map(Tensor::shallow_clone);
    let text = || match (&prompt.text, own_tokens()) {
        (None, None) => Err(lacks("a caption")),
        (text, tokens) => Ok(Prompt { text: text.clone(), tokens, ..Prompt::default() }),
    };
    let inpainting = || -> Result<Prompt> {
        let image = prompt.image.as_ref().or((batch.images.numel() > 0).then_some(&batch.images));
        let image = Some(image.ok_or_else(|| lacks("an image"))?.shallow_clone());
        Ok(Prompt { image, mask: own(&prompt.mask, "a mask")?, ..Prompt::default() })
    };
    Ok(match ConditioningKind::of(&model.config) {
        ConditioningKind::Unconditional => Prompt::default(),
        ConditioningKind::Class => Prompt { class: own(&prompt.class, "a class")?, ..Prompt::default() },
        ConditioningKind::Text => text()?,
        ConditioningKind::Layout => match (&prompt.layout, own_tokens()) {
            (None, None) => return Err(lacks("boxes")),
            (layout, tokens) => {
                let (layout, crops) = (layout.clone(), prompt.crops.clone());
                Prompt { layout, crops, tokens, ..Prompt::default() }
            }
        },
        ConditioningKind::LowResolution => {
            Prompt { image: own(&prompt.image, "a low-resolution image")?, ..Prompt::default() }
        }
        ConditioningKind::SemanticMap => match (&prompt.mask, &batch.label_map, &prompt.image) {
            (None, Some(map), _) => Prompt { mask: Some(one_hot(map, model)?), ..Prompt::default() },
            (None, None, Some(image)) => Prompt { image: Some(image.shallow_clone()), ..Prompt::default() },
            _ => Prompt { mask: own(&prompt.mask, "a label map")?, ..Prompt::default() },
        },
        ConditioningKind::Inpainting => inpainting()?,
        ConditioningKind::TextInpainting => {
            let Prompt { text, tokens, .. } = text()?;
            Prompt { text, tokens, ..inpainting()? }
        }
        ConditioningKind::Embedding => {
            Prompt { embedding: own(&prompt.embedding, "an embedding")?, ..Prompt::default() }
        }
    })
}

/// True when the condition of `model` is made of the image itself, so that its latent alone is not enough.
pub(crate) fn conditions_on_image(model: &LatentDiffusion) -> bool {
    matches!(
        ConditioningKind::of(&model.config),
        ConditioningKind::Inpainting | ConditioningKind::TextInpainting
    )
}

/// Checks that conditions of `model` can be dropped in training.
///
/// # Errors
/// [`Error::Invalid`] when the model has no null condition: it is refused now, not at the first batch.
pub(crate) fn check_dropout(model: &LatentDiffusion) -> Result<()> {
    let refuse = |why: &str| Err(Error::invalid(format!("train.conditioning_dropout: expected 0, {why}")));
    match (ConditioningKind::of(&model.config), model.config.conditioning_key()) {
        (ConditioningKind::Unconditional, _) => refuse("as the model is unconditional"),
        (ConditioningKind::Class, Some(ConditioningKey::Adm)) => {
            refuse("as the classes have none that means no class")
        }
        (ConditioningKind::Inpainting | ConditioningKind::LowResolution, _) => {
            refuse("as the model is conditioned on an image and has no null image")
        }
        // Zeros in the shape of the embeddings.
        (ConditioningKind::Embedding, _) => Ok(()),
        _ => model.conditioner.null_prompt(1).map(drop),
    }
}

/// Converts `[B, H, W]` classes to one-hot `[B, K, H, W]` on the model's device, so that the classes are transferred and not
/// the one-hot map.
fn one_hot(map: &Tensor, model: &LatentDiffusion) -> Result<Tensor> {
    let ConditionerConfig::Spatial(config) = &model.config.cond_stage_config else {
        unreachable!("a model of label maps has a spatial rescaler")
    };
    let count = config.in_channels;
    if map.device() == Device::Cpu && map.numel() > 0 {
        let highest = map.max().int64_value(&[]);
        if highest >= count {
            return Err(Error::invalid(format!(
                "label map: expected classes 0 to {}, got {highest}",
                count - 1
            )));
        }
    }
    let index = map.to_device(model.vs().device()).to_kind(Kind::Int64).unsqueeze(1); // [B, 1, H, W]
    let mut size = index.size();
    size[1] = count;
    Ok(Tensor::zeros(size, (Kind::Float, index.device())).scatter_value(1, &index, 1.))
}
