//! Parts of tiny configs: first stages of 16x16 images at f = 2, U-Nets of 32 channels, synthetic scenes.

/// The conditioner of a class-conditional model.
pub(crate) const CLASSES: &str = "{target: class, params: {embed_dim: 16, n_classes: 21, null_class: 20}}";

/// Entries of a U-Net with cross-attention to [`CLASSES`].
pub(crate) const CROSS_ATTENTION: &str = "num_heads: 2, use_spatial_transformer: true, context_dim: 16";

/// A held-out set of eight scenes.
pub(crate) const VALIDATION: &str =
    "{target: scenes, params: {size: 16, objects: [1, 1], count: 8, split: validation}}";

/// A dataset of scenes with one object.
pub(crate) fn scenes(count: usize) -> String {
    format!("{{target: scenes, params: {{size: 16, objects: [1, 1], count: {count}}}}}")
}

/// The section `data`, with micro-batches of four images that are read in the training thread.
pub(crate) fn data(train: &str, validation: Option<&str>) -> String {
    let validation = validation.map_or(String::new(), |set| format!(", validation: {set}"));
    format!(
        "data: {{target: data_module, params: {{batch_size: 4, num_workers: 0, train: {train}{validation}}}}}\n"
    )
}

/// A `kl` or `vq` first stage with latents of 4x8x8, with additional `params` and entries of `ddconfig`.
pub(crate) fn first_stage(kind: &str, params: &[&str], ddconfig: &[&str]) -> String {
    let (double_z, codebook) = if kind == "kl" { (true, "") } else { (false, ", n_embed: 32") };
    format!(
        "{{target: {kind}, params: {{embed_dim: 4{codebook}{}, ddconfig: {{double_z: {double_z}, z_channels: 4, \
         resolution: 16, in_channels: 3, out_ch: 3, ch: 32, ch_mult: [1, 1], num_res_blocks: 1, \
         attn_resolutions: []{}}}}}}}",
        entries(params),
        entries(ddconfig)
    )
}

/// A U-Net, with additional `params`.
pub(crate) fn unet(channels: i64, params: &[&str]) -> String {
    format!(
        "{{target: unet, params: {{in_channels: {channels}, out_channels: {channels}, model_channels: 32, \
         num_res_blocks: 1{}}}}}",
        entries(params)
    )
}

/// The section `model` of a diffusion model with latents of `channels` x `size` x `size`, with additional `params`.
pub(crate) fn diffusion(size: i64, channels: i64, params: &[&str]) -> String {
    format!(
        "model: {{target: latent_diffusion, params: {{image_size: {size}, channels: {channels}{}}}}}\n",
        entries(params)
    )
}

fn entries(list: &[&str]) -> String {
    list.iter().flat_map(|entry| [", ", *entry]).collect()
}
