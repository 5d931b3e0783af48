//! Whether the parts of a model can work together, before a forward would find out.

use ldm_conditioning::ConditionerConfig;
use ldm_core::{Error, Result};

use crate::LatentDiffusionConfig;
use crate::diffusion_config::{ConcatKey, ConditioningKey};

/// Refuses a U-Net that the first stage's latents of `latent` channels, or the conditioner, do not fit.
pub(crate) fn check(config: &LatentDiffusionConfig, latent: i64) -> Result<()> {
    let unet = config.unet();
    if config.channels != latent {
        return Err(Error::invalid(format!(
            "channels: the first stage has latents of {latent} channels, got {}",
            config.channels
        )));
    }
    if unet.out_channels != latent {
        return Err(Error::invalid(format!(
            "unet_config.params.out_channels: expected the latent's {latent} channels, got {}",
            unet.out_channels
        )));
    }
    if unet.n_embed.is_some() {
        return Err(Error::invalid(
            "unet_config.params.n_embed: predicting codebook entries is no diffusion model, leave it out",
        ));
    }
    check_concat(config, latent)?;
    check_context(config)?;
    check_label(config)
}

/// Channels joined to x_t.
fn check_concat(config: &LatentDiffusionConfig, latent: i64) -> Result<()> {
    let got = config.unet().in_channels;
    let joined = match config.conditioning_key() {
        None | Some(ConditioningKey::Crossattn | ConditioningKey::Adm) => 0,
        Some(ConditioningKey::Hybrid) => {
            (config.concat_keys().iter()).map(|key| if *key == ConcatKey::Mask { 1 } else { latent }).sum()
        }
        Some(ConditioningKey::Concat) => match &config.cond_stage_config {
            ConditionerConfig::FirstStage => latent + 1, // the masked image, and the mask
            // Whatever comes is handed on, so the U-Net alone knows.
            ConditionerConfig::Identity => (got - latent).max(1),
            other => other.concat_channels().ok_or_else(|| does_not_give(config, "a map for `concat`"))?,
        },
    };
    if got == latent + joined {
        return Ok(());
    }
    let joined = match joined {
        0 => String::new(),
        _ => format!(" and the {joined} of cond_stage_config, {}", latent + joined),
    };
    Err(Error::invalid(format!(
        "unet_config.params.in_channels: expected the latent's {latent} channels{joined}, got {got}"
    )))
}

/// Width of the tokens attended to.
fn check_context(config: &LatentDiffusionConfig) -> Result<()> {
    let got = config.unet().context_dim;
    let expected = match config.conditioning_key() {
        Some(ConditioningKey::Crossattn | ConditioningKey::Hybrid) => match &config.cond_stage_config {
            ConditionerConfig::Identity if got.is_some() => return Ok(()),
            ConditionerConfig::Identity => {
                return Err(Error::invalid(
                    "unet_config.params.context_dim: the embeddings of cond_stage_config are attended to, got none",
                ));
            }
            other => Some(other.context_dim().ok_or_else(|| does_not_give(config, "tokens"))?),
        },
        None if got.is_some() => {
            return Err(Error::invalid(
                "unet_config.params.context_dim: the model is unconditional and gives no context, leave it out",
            ));
        }
        None | Some(ConditioningKey::Concat | ConditioningKey::Adm) => None,
    };
    if got == expected {
        return Ok(());
    }
    let or_none = |value: Option<i64>| value.map_or_else(|| "none".into(), |value| value.to_string());
    Err(Error::invalid(format!(
        "unet_config.params.context_dim: the conditioner gives {}, got {}",
        or_none(expected),
        or_none(got)
    )))
}

/// Labels added to the time.
fn check_label(config: &LatentDiffusionConfig) -> Result<()> {
    let adm = config.conditioning_key() == Some(ConditioningKey::Adm);
    match config.unet().num_classes {
        Some(count) if !adm => Err(Error::invalid(format!(
            "unet_config.params.num_classes: labels need `conditioning_key: adm`, leave it out, got {count}"
        ))),
        None if adm => Err(Error::invalid(
            "unet_config.params.num_classes: `conditioning_key: adm` needs how many classes there are, got none",
        )),
        _ if adm && config.cond_stage_config != ConditionerConfig::Identity => {
            Err(does_not_give(config, "labels as they are (target `identity`)"))
        }
        _ => Ok(()),
    }
}

fn does_not_give(config: &LatentDiffusionConfig, what: &str) -> Error {
    let key = config.conditioning_key().map_or("none", ConditioningKey::name);
    Error::invalid(format!("conditioning_key: `{key}` needs a cond_stage_config that gives {what}"))
}
