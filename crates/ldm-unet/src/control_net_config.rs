//! Configuration of a ControlNet: that of the U-Net whose encoder half it copies, and the sizes of its hint encoder.

use ldm_checkpoint::Shapes;
use ldm_core::diffusers::{Fields, wrong};
use ldm_core::{Error, Result};
use serde_json::{Value, json};

use crate::backbone_config::positive;
use crate::config::UNetConfig;
use crate::from_diffusers::from_diffusers;
use crate::plan::Plan;

/// The configuration of a [`ControlNet`](crate::ControlNet).
#[derive(Debug, Clone, PartialEq)]
pub struct ControlNetConfig {
    /// The U-Net whose encoder half it copies; `in_channels` are those of the latent alone.
    pub unet: UNetConfig,
    /// Channels of the hint image.
    pub hint_channels: i64,
    /// Channels of the hint encoder at each resolution, each half the one before. The last resolution is the latent's.
    pub hint_widths: Vec<i64>,
    /// True if the channels of the hint are read in the order BGR.
    pub bgr: bool,
}

impl ControlNetConfig {
    /// Creates the config of a ControlNet of `unet` for latents of `channels`, with hints of 3 channels and 8 times the
    /// size of the latent, as all published ones have.
    pub fn of(unet: &UNetConfig, channels: i64) -> Self {
        let unet = UNetConfig {
            in_channels: channels,
            num_classes: None,
            n_embed: None,
            use_checkpoint: false,
            ..unet.clone()
        };
        Self { unet, hint_channels: 3, hint_widths: vec![16, 32, 96, 256], bgr: false }
    }

    /// Reads the sizes of the hint encoder from names (lllyasviel's or diffusers') and shapes.
    ///
    /// # Errors
    /// [`Error::Invalid`] if these are not the names and shapes of a hint encoder.
    pub fn with_hint_encoder_of(self, shapes: &Shapes) -> Result<Self> {
        let layers = |name: &dyn Fn(usize) -> String| -> Vec<&[i64]> {
            (0..).map_while(|index| shapes.get(&name(index))).map(Vec::as_slice).collect()
        };
        let mut found = layers(&|index| format!("input_hint_block.{}.weight", 2 * index));
        if found.is_empty() {
            found = layers(&|index| match index {
                0 => "controlnet_cond_embedding.conv_in.weight".into(),
                _ => format!("controlnet_cond_embedding.blocks.{}.weight", index - 1),
            });
        }
        let ([first, ..], true) = (&*found, found.iter().all(|shape| shape.len() == 4)) else {
            return Err(Error::invalid("input_hint_block: expected convolutions, got none"));
        };
        // The last convolution of each resolution, or the first one of all, has its channels.
        let hint_widths = found.iter().step_by(2).map(|shape| shape[0]).collect();
        Ok(Self { hint_channels: first[1], hint_widths, ..self })
    }

    /// Converts diffusers' `config.json` of a `ControlNetModel`.
    ///
    /// # Errors
    /// As [`from_diffusers`], and for `global_pool_conditions`.
    pub fn from_diffusers(json: &Value) -> Result<Self> {
        let fields = Fields::new(json)?;
        fields.word("_class_name", &["ControlNetModel"])?;
        for key in ["num_class_embeds", "addition_time_embed_dim", "projection_class_embeddings_input_dim"] {
            if let Some(value) = fields.get(key) {
                return Err(wrong(key, "null", Some(value)));
            }
        }
        if fields.flag("global_pool_conditions", false)? {
            let (key, value) = ("global_pool_conditions", fields.get("global_pool_conditions"));
            return Err(wrong(key, "false, as shuffle ControlNets are not supported", value));
        }
        let channels = fields.integer("in_channels", 4)?;
        // The class has the fields of the U-Net's down path alone.
        let up = fields.block_types("down_block_types")?.into_iter().rev();
        let up: Vec<String> = up.map(|name| name.replace("DownBlock", "UpBlock")).collect();
        let mut unet = json.clone();
        unet["_class_name"] = "UNet2DConditionModel".into();
        unet["up_block_types"] = json!(up);
        unet["out_channels"] = channels.into();
        let order = fields.word("controlnet_conditioning_channel_order", &["rgb", "bgr"])?;
        let key = "conditioning_embedding_out_channels";
        let hint_widths =
            if fields.get(key).is_some() { fields.integers(key)? } else { vec![16, 32, 96, 256] };
        let hint_channels = fields.integer("conditioning_channels", 3)?;
        let config = Self { unet: from_diffusers(&unet)?, hint_channels, hint_widths, bgr: order == "bgr" };
        config.check()?;
        Ok(config)
    }

    /// The size of a hint in units of the latent's.
    pub fn hint_factor(&self) -> i64 {
        1 << (self.hint_widths.len() - 1)
    }

    pub(crate) fn check(&self) -> Result<()> {
        positive("conditioning_channels", self.hint_channels)?;
        let widths = &self.hint_widths;
        if widths.is_empty() || widths.len() > 31 || widths.iter().any(|width| *width < 1) {
            return Err(Error::invalid(format!(
                "conditioning_embedding_out_channels: expected 1 to 31 positive numbers, got {widths:?}"
            )));
        }
        if self.unet.dims != 2 {
            return Err(Error::invalid(format!("dims: expected 2 (images), got {}", self.unet.dims)));
        }
        Ok(())
    }

    /// Checks that its residuals are those of the skip connections of `unet`, and that it takes the same context.
    ///
    /// # Errors
    /// [`Error::Invalid`] with the difference.
    pub fn check_fits(&self, unet: &UNetConfig) -> Result<()> {
        let width = |config: &UNetConfig| config.context_dim.map_or("none".into(), |width| width.to_string());
        let (own, other) = (width(&self.unet), width(unet));
        if own != other {
            return Err(Error::invalid(format!(
                "context: expected {other} channels, as in the model's U-Net, got {own}"
            )));
        }
        let channels = |config: &UNetConfig| -> Result<Vec<i64>> {
            Ok(Plan::new(config)?.input.iter().map(|block| block.channels).collect())
        };
        let (own, other) = (channels(&self.unet)?, channels(unet)?);
        if own != other {
            return Err(Error::invalid(format!(
                "blocks: expected channels {other:?}, as in the model's U-Net, got {own:?}"
            )));
        }
        Ok(())
    }
}
