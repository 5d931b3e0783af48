//! One-line descriptions of architectures.

use ldm_autoencoder::FirstStageConfig;
use ldm_pipelines::{ClassifierConfig, ConditioningKind, LatentDiffusionConfig, ModelConfig};
use ldm_unet::{ControlNetConfig, UNetConfig};

pub(super) fn model(model: &ModelConfig) -> String {
    match model {
        ModelConfig::LatentDiffusion(model) => diffusion(model),
        ModelConfig::Classifier(model) => classifier(model),
        other => first_stage(&other.first_stage().expect("every other model is a first stage")),
    }
}

fn diffusion(model: &LatentDiffusionConfig) -> String {
    let condition = match model.conditioning_key() {
        None => "unconditional".into(),
        Some(key) => format!("conditioned on {} by {}", ConditioningKind::of(model), key.name()),
    };
    let side = model.image_size;
    format!("latent diffusion, {} x {side} x {side} latents, {condition}", model.channels)
}

fn classifier(model: &ClassifierConfig) -> String {
    let classes = model.num_classes;
    // A checkpoint of CompVis without its diffusion model has no more information.
    let of =
        model.network().map_or(String::new(), |network| format!(", {} latent channels", network.in_channels));
    format!("classifier of noisy latents, {classes} classes{of}")
}

pub(super) fn first_stage(config: &FirstStageConfig) -> String {
    match config {
        FirstStageConfig::Kl(kl) => {
            format!("KL first stage, f = {}, {} latent channels", kl.ddconfig.factor(), kl.embed_dim)
        }
        FirstStageConfig::Vq(vq) => format!(
            "VQ first stage, f = {}, {} latent channels, {} codes",
            vq.ddconfig.factor(),
            vq.embed_dim,
            vq.n_embed
        ),
        FirstStageConfig::Identity(_) => "no first stage: images are their own latents".into(),
    }
}

pub(super) fn unet(config: &UNetConfig) -> String {
    let channels: Vec<String> =
        config.channel_mult.iter().map(|mult| (mult * config.model_channels).to_string()).collect();
    let condition = match (config.context_dim, config.num_classes) {
        (Some(width), _) => format!(", attends to tokens of {width}"),
        (_, Some(classes)) => format!(", {classes} classes"),
        _ => String::new(),
    };
    format!(
        "U-Net {} -> {}, levels of {} channels{condition}",
        config.in_channels,
        config.out_channels,
        channels.join(", ")
    )
}

pub(super) fn control_net(config: &ControlNetConfig) -> String {
    let ControlNetConfig { unet: net, hint_channels, .. } = config;
    format!("ControlNet of a {}, hints of {hint_channels} channels", unet(net))
}
