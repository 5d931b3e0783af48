//! Checks that the parts of a model fit together, before any forward.

use ldm_conditioning::ConditionerConfig;
use ldm_core::{Error, Result};

use crate::LatentDiffusionConfig;
use crate::diffusion_config::{ConcatKey, ConditioningKey};

/// Checks that the U-Net fits the first stage's latents of `latent` channels and the conditioner.
pub(crate) fn check(config: &LatentDiffusionConfig, latent: i64) -> Result<()> {
    let unet = config.unet();
    if config.channels != latent {
        return Err(Error::invalid(format!(
            "channels: expected {latent}, those of the first stage's latents, got {}",
            config.channels
        )));
    }
    if unet.out_channels != latent {
        return Err(Error::invalid(format!(
            "unet_config.params.out_channels: expected the latent's {latent} channels, got {}",
            unet.out_channels
        )));
    }
    if let Some(got) = unet.n_embed {
        return Err(Error::invalid(format!(
            "unet_config.params.n_embed: expected none in a diffusion model, got {got}"
        )));
    }
    if matches!(config.cond_stage_config, ConditionerConfig::Hybrid(_))
        && config.conditioning_key() != Some(ConditioningKey::Hybrid)
    {
        let got = config.conditioning_key().map_or("none", ConditioningKey::name);
        let message = format!("conditioning_key: expected hybrid with a hybrid conditioner, got {got}");
        return Err(Error::invalid(message));
    }
    check_concat(config, latent)?;
    check_context(config)?;
    check_label(config)
}

/// Checks the channels concatenated to x_t.
fn check_concat(config: &LatentDiffusionConfig, latent: i64) -> Result<()> {
    let got = config.unet().in_channels;
    let joined = match config.conditioning_key() {
        None | Some(ConditioningKey::Crossattn | ConditioningKey::Adm) => 0,
        Some(ConditioningKey::Hybrid) if matches!(config.cond_stage_config, ConditionerConfig::Hybrid(_)) => {
            // An image is used as it is, so only the U-Net determines it.
            config.cond_stage_config.concat_channels().unwrap_or((got - latent).max(1))
        }
        Some(ConditioningKey::Hybrid) => {
            (config.concat_keys().iter()).map(|key| if *key == ConcatKey::Mask { 1 } else { latent }).sum()
        }
        Some(ConditioningKey::Concat) => match &config.cond_stage_config {
            ConditionerConfig::FirstStage => latent + 1, // the masked image, and the mask
            // The condition is used as it is, so only the U-Net determines it.
            ConditionerConfig::Identity => (got - latent).max(1),
            other => other.concat_channels().ok_or_else(|| wrong_conditioner(config, "a feature map"))?,
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

/// Checks the width of the context.
fn check_context(config: &LatentDiffusionConfig) -> Result<()> {
    let got = config.unet().context_dim;
    let expected = match config.conditioning_key() {
        Some(ConditioningKey::Crossattn | ConditioningKey::Hybrid) => match &config.cond_stage_config {
            ConditionerConfig::Identity if got.is_some() => return Ok(()),
            ConditionerConfig::Hybrid(hybrid)
                if *hybrid.c_crossattn_config == ConditionerConfig::Identity && got.is_some() =>
            {
                return Ok(());
            }
            ConditionerConfig::Identity => {
                return Err(Error::invalid(
                    "unet_config.params.context_dim: expected the width of the embeddings, got none",
                ));
            }
            other => Some(other.context_dim().ok_or_else(|| wrong_conditioner(config, "tokens"))?),
        },
        None if got.is_some() => {
            return Err(Error::invalid(format!(
                "unet_config.params.context_dim: expected none in an unconditional model, got {}",
                got.unwrap_or_default()
            )));
        }
        None | Some(ConditioningKey::Concat | ConditioningKey::Adm) => None,
    };
    if got == expected {
        return Ok(());
    }
    let or_none = |value: Option<i64>| value.map_or_else(|| "none".into(), |value| value.to_string());
    Err(Error::invalid(format!(
        "unet_config.params.context_dim: expected {}, the width of the conditioner, got {}",
        or_none(expected),
        or_none(got)
    )))
}

/// Checks the labels added to the time embedding.
fn check_label(config: &LatentDiffusionConfig) -> Result<()> {
    let adm = config.conditioning_key() == Some(ConditioningKey::Adm);
    match config.unet().num_classes {
        Some(count) if !adm => Err(Error::invalid(format!(
            "unet_config.params.num_classes: expected none without `conditioning_key: adm`, got {count}"
        ))),
        None if adm => Err(Error::invalid(
            "unet_config.params.num_classes: expected the number of classes with `conditioning_key: adm`, got none",
        )),
        _ if adm && config.cond_stage_config != ConditionerConfig::Identity => {
            Err(wrong_conditioner(config, "labels (target `identity`)"))
        }
        _ => Ok(()),
    }
}

fn wrong_conditioner(config: &LatentDiffusionConfig, output: &str) -> Error {
    let key = config.conditioning_key().map_or("none", ConditioningKey::name);
    Error::invalid(format!("cond_stage_config: expected one that outputs {output} for `{key}`, got another"))
}
