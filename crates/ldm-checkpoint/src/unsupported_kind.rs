//! Detection of weights of unsupported models.

use crate::Shapes;

/// Returns the kind of model that a file belongs to, if it is a known but unsupported one.
///
/// Detected by names and a few shapes, below any prefix. `None` means that the file is none of the known kinds.
pub fn unsupported_kind(shapes: &Shapes) -> Option<&'static str> {
    let any = |of: &dyn Fn(&str) -> bool| shapes.keys().any(|name| of(name));
    let holds = |parts: &[&str]| any(&|name| parts.iter().any(|part| name.contains(part)));
    let starts = |parts: &[&str]| any(&|name| parts.iter().any(|part| name.starts_with(part)));
    // A convolution of kernel 1 in latent diffusion and Stable Diffusion 1, a linear layer in later models.
    let linear = |widths: &[i64]| {
        shapes.iter().any(|(name, shape)| {
            let Some(module) = name.strip_suffix("transformer_blocks.0.attn2.to_k.weight") else {
                return false;
            };
            let proj_in = shapes.get(&format!("{module}proj_in.weight"));
            widths.iter().any(|width| shape.get(1) == Some(width))
                && proj_in.is_some_and(|shape| shape.len() == 2)
        })
    };
    if holds(&["lora_up.", "lora_down.", "lora_A.", "lora_B."]) || starts(&["lora_unet_", "lora_te"]) {
        return Some("a LoRA: low-rank changes to a model's weights; try --model BASE --lora FILE");
    }
    if shapes.contains_key("lora_controlnet") {
        return Some("a Control-LoRA: low-rank changes that make a U-Net a ControlNet, not supported");
    }
    if starts(&["control_model.", "controlnet_"])
        || holds(&["controlnet_cond_embedding.", "input_hint_block."])
    {
        return Some(if shapes.contains_key("difference") {
            "the difference of a ControlNet and its base model, not supported; try the file of the whole ControlNet"
        } else {
            "a ControlNet: an addition to a U-Net; try --model BASE --controlnet FILE --control-image IMAGE"
        });
    }
    if any(&|name| ["emb_params", "string_to_param", "<"].iter().any(|part| name.starts_with(part)))
        || (shapes.len() <= 2 && shapes.keys().any(|name| name == "clip_l" || name == "clip_g"))
    {
        return Some("a textual inversion: embeddings of new words, not a model");
    }
    if holds(&["double_blocks.", "single_blocks."]) {
        return Some("a Flux transformer, not a U-Net");
    }
    if holds(&["joint_blocks."]) {
        return Some("a Stable Diffusion 3 transformer, not a U-Net");
    }
    let below = |name: &str| {
        name.strip_prefix("model.diffusion_model.").unwrap_or(name).starts_with("transformer_blocks.")
    };
    if any(&below) {
        return Some("a diffusion transformer (Stable Diffusion 3, Flux or similar), not a U-Net");
    }
    if holds(&["conditioner.embedders.1."]) || starts(&["add_embedding.linear_1."]) || linear(&[2048, 1280]) {
        return Some("a Stable Diffusion XL model, not a latent diffusion model of the first generation");
    }
    if holds(&["cond_stage_model.model.transformer.resblocks."]) || linear(&[1024]) {
        return Some("a Stable Diffusion 2 model, not a latent diffusion model of the first generation");
    }
    None
}
