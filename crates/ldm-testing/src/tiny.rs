//! Configs that train in seconds.

/// A KL first stage of f = 2 on synthetic scenes of 16 x 16 pixels, 12 steps.
pub const FIRST_STAGE: &str = "
model:
  target: kl
  params:
    embed_dim: 4
    ddconfig: {double_z: true, z_channels: 4, resolution: 16, in_channels: 3, out_ch: 3, ch: 32, ch_mult: [1, 1],
               num_res_blocks: 1, attn_resolutions: [], attn_type: none}
data:
  target: data_module
  params:
    batch_size: 4
    num_workers: 2
    train: {target: scenes, params: {size: 16, objects: [1, 1], count: 64}}
train: {steps: 12, learning_rate: 1.0e-3, log_every: 2, checkpoint_every: 4, samples: {count: 4}, ema: {decay: 0.9}}
";

/// A class-conditional diffusion model on the first stage in `first`, 4 steps.
pub const DIFFUSION: &str = "
model:
  target: latent_diffusion
  params:
    image_size: 8
    channels: 4
    scale_by_std: true
    cond_stage_trainable: true
    unet_config:
      target: unet
      params: {in_channels: 4, out_channels: 4, model_channels: 32, attention_resolutions: [1], num_res_blocks: 1,
               channel_mult: [1, 1], num_heads: 2, use_spatial_transformer: true, context_dim: 16}
    first_stage_config:
      target: kl
      params:
        embed_dim: 4
        ckpt_path: first
        ddconfig: {double_z: true, z_channels: 4, resolution: 16, in_channels: 3, out_ch: 3, ch: 32, ch_mult: [1, 1],
                   num_res_blocks: 1, attn_resolutions: [], attn_type: none}
    cond_stage_config: {target: class, params: {embed_dim: 16, n_classes: 11, null_class: 10}}
data:
  target: data_module
  params:
    batch_size: 4
    train: {target: scenes, params: {size: 16, objects: [1, 1], count: 64}}
train: {steps: 4, learning_rate: 1.0e-3, log_every: 2, checkpoint_every: 4, samples: {count: 4, steps: 2}, conditioning_dropout: 0.1}
";

/// Synthetic scenes of 16 x 16 pixels.
pub const SCENES: &str = "{target: scenes, params: {size: 16, objects: [1, 1], count: 64}}";

/// The first stage of [`FIRST_STAGE`] with other keys of `data.params` and `train`, as `batch_size: 2`.
pub fn first_stage(data: &str, train: &str) -> String {
    on_scenes(FIRST_STAGE, data, train)
}

/// The diffusion model of [`DIFFUSION`] with other keys of `data.params` and `train`.
pub fn diffusion(data: &str, train: &str) -> String {
    on_scenes(DIFFUSION, data, train)
}

/// The diffusion model of [`diffusion`] with another conditioner that attends to 16 channels.
pub fn conditioned(conditioner: &str, data: &str, train: &str) -> String {
    let classes =
        "cond_stage_config: {target: class, params: {embed_dim: 16, n_classes: 11, null_class: 10}}";
    let text = diffusion(data, train);
    assert!(text.contains(classes), "{text}");
    text.replace(classes, &format!("cond_stage_config: {conditioner}"))
}

fn on_scenes(config: &str, data: &str, train: &str) -> String {
    let (model, _) = config.split_once("data:").unwrap();
    format!("{model}data: {{target: data_module, params: {{{data}, train: {SCENES}}}}}\ntrain: {{{train}}}\n")
}
