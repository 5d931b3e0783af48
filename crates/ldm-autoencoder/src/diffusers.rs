//! diffusers' `config.json` of a first stage.

use ldm_core::diffusers::{Fields, VERSION, wrong};
use ldm_core::{Error, Result};
use serde_json::{Value, json};

use crate::checks;
use crate::config::{FirstStageConfig, KlConfig, VqConfig};
use crate::encoder_config::{AttentionType, EncoderConfig};

/// The only supported values of these fields, which are diffusers' defaults too.
fn supported_values() -> Value {
    json!({
        "act_fn": ["silu", "swish"],
        "norm_num_groups": [32],
        "norm_type": ["group"],
        "shift_factor": [null, 0],
        "latents_mean": [null],
        "latents_std": [null],
        "use_quant_conv": [true],
        "use_post_quant_conv": [true],
        "lookup_from_codebook": [false],
    })
}

/// The default scale factor of an `AutoencoderKL`: that of Stable Diffusion v1, and diffusers' default.
const KL_SCALE: f64 = 0.18215;

/// The nominal resolution if diffusers' sample size is no valid one.
const RESOLUTION: i64 = 256;

/// Converts diffusers' `config.json` of an `AutoencoderKL` or a `VQModel` to a config and the scale factor that the
/// diffusion model applies to latents.
///
/// A file without a scale factor predates diffusers 0.13, whose pipelines took 0.18215 for an `AutoencoderKL` and none
/// for a `VQModel`.
///
/// # Errors
/// [`Error::Invalid`] with the field, if it is missing or has a value that CompVis' networks do not support.
pub fn from_diffusers(json: &Value) -> Result<(FirstStageConfig, f64)> {
    let fields = Fields::new(json)?;
    let class = fields.class()?;
    let kl = match class {
        "AutoencoderKL" => true,
        "VQModel" => false,
        _ => return Err(wrong("_class_name", "AutoencoderKL or VQModel", json.get("_class_name"))),
    };
    fields.check(&supported_values())?;
    let z_channels = fields.integer("latent_channels", if kl { 4 } else { 3 })?;
    let ddconfig = encoder(&fields, kl, z_channels)?;
    let scale = fields.maybe_number("scaling_factor")?.unwrap_or(if kl { KL_SCALE } else { 1. });
    let config = if kl {
        FirstStageConfig::Kl(KlConfig::new(z_channels, ddconfig))
    } else {
        let embed_dim = fields.integer("vq_embed_dim", z_channels)?;
        FirstStageConfig::Vq(VqConfig::new(embed_dim, fields.integer("num_vq_embeddings", 256)?, ddconfig))
    };
    config.validate()?;
    if !(scale > 0. && scale.is_finite()) {
        return Err(wrong("scaling_factor", "a positive number", json.get("scaling_factor")));
    }
    Ok((config, scale))
}

fn encoder(fields: &Fields, double_z: bool, z_channels: i64) -> Result<EncoderConfig> {
    let widths = fields.integers("block_out_channels")?;
    let ch = widths.first().copied().unwrap_or(0);
    if ch < 1 || widths.len() > 31 || widths.iter().any(|width| *width < 1 || width % ch != 0) {
        let expected = "1 to 31 multiples of the first";
        return Err(wrong("block_out_channels", expected, fields.get("block_out_channels")));
    }
    let factor = 1 << (widths.len() - 1);
    let side = fields.size("sample_size")?.map_or(RESOLUTION, |[height, _]| height);
    let resolution = if side >= factor && side % factor == 0 { side } else { RESOLUTION.max(factor) };
    let down =
        attends(fields, "down_block_types", ["DownEncoderBlock2D", "AttnDownEncoderBlock2D"], widths.len())?;
    let mut up =
        attends(fields, "up_block_types", ["UpDecoderBlock2D", "AttnUpDecoderBlock2D"], widths.len())?;
    up.reverse();
    if up != down {
        return Err(wrong("up_block_types", "the mirror of down_block_types", fields.get("up_block_types")));
    }
    let middle = fields.flag("mid_block_add_attention", true)?;
    if !middle && down.contains(&true) {
        let expected = "true, as levels have attention";
        return Err(wrong("mid_block_add_attention", expected, fields.get("mid_block_add_attention")));
    }
    let levels = (0..widths.len()).filter(|level| down[*level]);
    Ok(EncoderConfig {
        double_z,
        z_channels,
        resolution,
        in_channels: fields.integer("in_channels", 3)?,
        out_ch: fields.integer("out_channels", 3)?,
        ch,
        ch_mult: widths.iter().map(|width| width / ch).collect(),
        num_res_blocks: fields.integer("layers_per_block", 1)?,
        attn_resolutions: levels.map(|level| resolution >> level).collect(),
        dropout: 0.,
        resamp_with_conv: true,
        attn_type: if middle { AttentionType::Vanilla } else { AttentionType::None },
        use_linear_attn: false,
        tanh_out: false,
        give_pre_end: false,
    })
}

/// Reads which levels have attention from a list of block types.
fn attends(fields: &Fields, key: &str, [plain, attention]: [&str; 2], levels: usize) -> Result<Vec<bool>> {
    let types = fields.block_types(key)?;
    if types.len() != levels || types.iter().any(|each| *each != plain && *each != attention) {
        let expected = format!("{levels} of {plain} and {attention}");
        return Err(wrong(key, &expected, fields.get(key)));
    }
    Ok(types.into_iter().map(|each| each == attention).collect())
}

/// Converts a config to diffusers' `config.json`. The diffusion model multiplies latents by `scale_factor`.
///
/// # Errors
/// [`Error::Invalid`] with the key, if diffusers has no such model.
pub fn to_diffusers(config: &FirstStageConfig, scale_factor: f64) -> Result<Value> {
    let net = expressible(config)?;
    let types = |plain: &str, attention: &str| -> Vec<String> {
        let attends = |level| net.encoder_attention(level) == AttentionType::Vanilla;
        (0..net.levels()).map(|level| if attends(level) { attention } else { plain }.to_owned()).collect()
    };
    let mut up = types("UpDecoderBlock2D", "AttnUpDecoderBlock2D");
    up.reverse();
    let widths: Vec<i64> = (0..net.levels()).map(|level| net.channels(level)).collect();
    let mut json = json!({
        "_diffusers_version": VERSION,
        "act_fn": "silu",
        "block_out_channels": widths,
        "down_block_types": types("DownEncoderBlock2D", "AttnDownEncoderBlock2D"),
        "in_channels": net.in_channels,
        "latent_channels": net.z_channels,
        "layers_per_block": net.num_res_blocks,
        "mid_block_add_attention": net.attention() == AttentionType::Vanilla,
        "norm_num_groups": 32,
        "out_channels": net.out_ch,
        "sample_size": net.resolution,
        "scaling_factor": scale_factor,
        "up_block_types": up,
    });
    match config {
        FirstStageConfig::Vq(vq) => {
            json["_class_name"] = "VQModel".into();
            json["norm_type"] = "group".into();
            json["num_vq_embeddings"] = vq.n_embed.into();
            json["vq_embed_dim"] = vq.embed_dim.into();
        }
        _ => json["_class_name"] = "AutoencoderKL".into(),
    }
    Ok(json)
}

/// Checks that diffusers has such a model.
pub(crate) fn expressible(config: &FirstStageConfig) -> Result<&EncoderConfig> {
    config.validate()?;
    let (net, labels) = match config {
        FirstStageConfig::Kl(kl) => (&kl.ddconfig, kl.colorize_nlabels),
        FirstStageConfig::Vq(vq) => (&vq.ddconfig, vq.colorize_nlabels),
        FirstStageConfig::Identity(_) => {
            return Err(Error::invalid("`target`: expected `kl` or `vq`, which diffusers has, got identity"));
        }
    };
    let refuse = |key: &str, expected: &str, got: &dyn std::fmt::Display| {
        checks::refuse(key, &format!("{expected} (the only value in diffusers)"), got)
    };
    match config {
        FirstStageConfig::Kl(kl) if kl.embed_dim != net.z_channels => {
            let expected = format!("{}, the z_channels", net.z_channels);
            return refuse("embed_dim", &expected, &kl.embed_dim);
        }
        FirstStageConfig::Vq(vq) => {
            if let Some(file) = &vq.remap {
                return refuse("remap", "none", &file.display());
            }
        }
        _ => {}
    }
    if let Some(labels) = labels {
        return refuse("colorize_nlabels", "none", &labels);
    }
    if net.ch_mult[0] != 1 {
        return refuse("ddconfig.ch_mult", "1 first", &net.ch_mult[0]);
    }
    if net.attention() == AttentionType::Linear {
        return refuse("ddconfig.attn_type", "vanilla or none", &"linear");
    }
    for (key, got, wanted) in [
        ("ddconfig.resamp_with_conv", net.resamp_with_conv, true),
        ("ddconfig.tanh_out", net.tanh_out, false),
        ("ddconfig.give_pre_end", net.give_pre_end, false),
    ] {
        if got != wanted {
            return refuse(key, &wanted.to_string(), &got);
        }
    }
    if (0..net.levels()).any(|level| net.encoder_attention(level) != net.decoder_attention(level)) {
        return refuse("ddconfig.resolution", &format!("a multiple of {}", net.factor()), &net.resolution);
    }
    Ok(net)
}
