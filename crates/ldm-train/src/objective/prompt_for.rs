//! What a batch tells a diffusion model: the part of it that the model is conditioned on.

use ldm_conditioning::ConditionerConfig;
use ldm_core::{Error, Prompt, Result};
use ldm_data::Batch;
use ldm_pipelines::{ConditioningKey, ConditioningKind, LatentDiffusion};
use tch::{Device, Kind, Tensor};

/// Of what a batch holds, what `model` is prompt_for, and nothing else: a set may know more of its images than the model
/// asks for. Maps of classes become one-hot, and an image that is to be filled is the image itself.
///
/// # Errors
/// [`Error::Data`] naming an image and what is not known of it; [`Error::Invalid`] when a map has a class that the
/// model does not know.
pub fn prompt_for(model: &LatentDiffusion, batch: &Batch) -> Result<Prompt> {
    let lacks = |what: &str| {
        let name = batch.names.first().map_or("the data", String::as_str);
        Error::data(name, format!("has no {what}, and the model is prompt_for one"))
    };
    let prompt = &batch.prompt;
    let own = |tensor: &Option<Tensor>, what: &str| -> Result<Option<Tensor>> {
        tensor.as_ref().map(|tensor| Some(tensor.shallow_clone())).ok_or_else(|| lacks(what))
    };
    let own_tokens = || prompt.tokens.as_ref().map(Tensor::shallow_clone);
    let text = || match (&prompt.text, own_tokens()) {
        (None, None) => Err(lacks("caption")),
        (text, tokens) => Ok(Prompt { text: text.clone(), tokens, ..Prompt::default() }),
    };
    let filling = || -> Result<Prompt> {
        let image = prompt.image.as_ref().or((batch.images.numel() > 0).then_some(&batch.images));
        let image = Some(image.ok_or_else(|| lacks("image"))?.shallow_clone());
        Ok(Prompt { image, mask: own(&prompt.mask, "mask of what to fill")?, ..Prompt::default() })
    };
    Ok(match ConditioningKind::of(&model.config) {
        ConditioningKind::Unconditional => Prompt::default(),
        ConditioningKind::Class => Prompt { class: own(&prompt.class, "class")?, ..Prompt::default() },
        ConditioningKind::Text => text()?,
        ConditioningKind::Layout => match (&prompt.layout, own_tokens()) {
            (None, None) => return Err(lacks("boxes")),
            (layout, tokens) => {
                let (layout, crops) = (layout.clone(), prompt.crops.clone());
                Prompt { layout, crops, tokens, ..Prompt::default() }
            }
        },
        ConditioningKind::LowResolution => {
            Prompt { image: own(&prompt.image, "small image")?, ..Prompt::default() }
        }
        ConditioningKind::SemanticMap => match (&prompt.mask, &batch.label_map, &prompt.image) {
            (None, Some(map), _) => Prompt { mask: Some(one_hot(map, model)?), ..Prompt::default() },
            (None, None, Some(image)) => Prompt { image: Some(image.shallow_clone()), ..Prompt::default() },
            _ => Prompt { mask: own(&prompt.mask, "map of classes")?, ..Prompt::default() },
        },
        ConditioningKind::Inpainting => filling()?,
        ConditioningKind::TextInpainting => {
            let Prompt { text, tokens, .. } = text()?;
            Prompt { text, tokens, ..filling()? }
        }
        ConditioningKind::Embedding => {
            Prompt { embedding: own(&prompt.embedding, "embedding")?, ..Prompt::default() }
        }
    })
}

/// Whether the condition of `model` is made of the image itself, whose latent alone does not do then.
pub(crate) fn conditions_on_image(model: &LatentDiffusion) -> bool {
    matches!(
        ConditioningKind::of(&model.config),
        ConditioningKind::Inpainting | ConditioningKind::TextInpainting
    )
}

/// Whether conditions of `model` can be dropped in training.
///
/// # Errors
/// [`Error::Invalid`] with what is missing: a model that has no word for "nothing" is refused now, not at the first
/// batch.
pub(crate) fn check_dropout(model: &LatentDiffusion) -> Result<()> {
    let refuse = |why: &str| Err(Error::invalid(format!("conditioning dropout: {why}, expected 0")));
    match (ConditioningKind::of(&model.config), model.config.conditioning_key()) {
        (ConditioningKind::Unconditional, _) => refuse("the model is conditioned on nothing"),
        (ConditioningKind::Class, Some(ConditioningKey::Adm)) => {
            refuse("these labels have none that means no class")
        }
        (ConditioningKind::Inpainting | ConditioningKind::LowResolution, _) => {
            refuse("the model is conditioned on an image, of which none means nothing")
        }
        // Zeros of the embeddings' own shape.
        (ConditioningKind::Embedding, _) => Ok(()),
        _ => model.conditioner.null_prompt(1).map(drop),
    }
}

/// `[B, H, W]` classes as `[B, K, H, W]` zeros and ones, on the model's device: the classes travel, not the ones.
fn one_hot(map: &Tensor, model: &LatentDiffusion) -> Result<Tensor> {
    let ConditionerConfig::Spatial(config) = &model.config.cond_stage_config else {
        unreachable!("a model that needs a map rescales it")
    };
    let count = config.in_channels;
    if map.device() == Device::Cpu && map.numel() > 0 {
        let highest = map.max().int64_value(&[]);
        if highest >= count {
            return Err(Error::invalid(format!(
                "map of classes: this model knows the classes 0 to {}, got {highest}",
                count - 1
            )));
        }
    }
    let index = map.to_device(model.vs().device()).to_kind(Kind::Int64).unsqueeze(1); // [B, 1, H, W]
    let mut size = index.size();
    size[1] = count;
    Ok(Tensor::zeros(size, (Kind::Float, index.device())).scatter_value(1, &index, 1.))
}
