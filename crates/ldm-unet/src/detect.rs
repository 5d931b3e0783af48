//! U-Net configuration inferred from names and shapes.

use ldm_checkpoint::Shapes;
use ldm_core::{Error, Mismatch, Result};

use crate::config::UNetConfig;
use crate::plan::Plan;
use crate::published::{self, Heads};

/// Infers the config of a U-Net from the names (CompVis', below `model.diffusion_model.`) and shapes of its weights.
///
/// Shapes do not show the attention heads, the order of their channels and the size of the latents; these are taken from
/// the published model with the same shapes. Dropout is 0, as there.
///
/// # Errors
/// [`Error::Invalid`] if these are not the names and shapes of a U-Net, or of no published one: a config must give the
/// heads.
pub fn infer_config(shapes: &Shapes) -> Result<UNetConfig> {
    let mut config = UNetShapes(shapes).config()?;
    config.num_heads = 1; // divides any number of channels; no shape depends on it
    let mismatch = compare(&Plan::new(&config)?, shapes);
    if !mismatch.is_empty() {
        return Err(Error::invalid(format!("expected the names and shapes of a U-Net, got {mismatch}")));
    }
    let Some(published) = published::find(&config) else {
        return Err(Error::invalid(format!(
            "num_heads: expected a published U-Net, as shapes do not show its heads, got model_channels {} and channel_mult {:?}; try a config",
            config.model_channels, config.channel_mult
        )));
    };
    (config.num_heads, config.num_head_channels) = match published.heads {
        Heads::Count(heads) => (heads, -1),
        Heads::Width(width) => (-1, width),
    };
    config.image_size = published.side.map(|side| [side; 2]);
    Plan::new(&config)?;
    Ok(config)
}

fn compare(plan: &Plan, shapes: &Shapes) -> Mismatch {
    let model: Shapes = plan.parameters().into_iter().collect();
    let mut mismatch = Mismatch::default();
    for (name, shape) in &model {
        match shapes.get(name) {
            None => mismatch.missing.push(name.clone()),
            Some(found) if found != shape => {
                mismatch.misshaped.push((name.clone(), shape.clone(), found.clone()));
            }
            Some(_) => {}
        }
    }
    mismatch.unexpected = shapes.keys().filter(|name| !model.contains_key(*name)).cloned().collect();
    mismatch
}

struct UNetShapes<'a>(&'a Shapes);

impl UNetShapes<'_> {
    fn has(&self, name: &str) -> bool {
        self.0.contains_key(name)
    }

    /// Reads the size of `name` along `axis`.
    fn size(&self, name: &str, axis: usize) -> Result<i64> {
        let shape = self.0.get(name).ok_or_else(|| {
            Error::invalid(format!("expected the names of a U-Net, got none called {name}"))
        })?;
        shape.get(axis).copied().filter(|size| *size > 0).ok_or_else(|| {
            Error::invalid(format!("{name}: expected a size along axis {axis}, got shape {shape:?}"))
        })
    }

    /// Counts consecutive names `name(0)`, `name(1)`, …
    fn count(&self, name: impl Fn(usize) -> String) -> usize {
        (0..self.0.len()).take_while(|index| self.has(&name(*index))).count()
    }

    fn config(&self) -> Result<UNetConfig> {
        let model_channels = self.size("input_blocks.0.0.weight", 0)?;
        let channels = [self.size("input_blocks.0.0.weight", 1)?, self.size("out.2.weight", 0)?];
        let (levels, resampling) = self.levels();
        let blocks = self.count(|index| format!("output_blocks.{index}.0.in_layers.0.weight"));
        if blocks == 0 {
            self.size("output_blocks.0.0.in_layers.0.weight", 0)?;
        }
        // As many down blocks as up blocks: at every level its residual blocks and one more.
        if levels > 31 || !blocks.is_multiple_of(levels) || blocks / levels < 2 {
            return Err(Error::invalid(format!(
                "output_blocks: expected a multiple of {levels} levels, at least 2 blocks each, got {blocks} blocks"
            )));
        }
        let (mut channel_mult, mut attends) = (Vec::new(), Vec::new());
        for level in 0..levels {
            let block = 1 + level * (blocks / levels);
            let name = format!("input_blocks.{block}.0.out_layers.3.weight");
            let width = self.size(&name, 0)?;
            if width % model_channels != 0 {
                let expected = format!("a multiple of the {model_channels} channels of input_blocks.0.0");
                return Err(Error::invalid(format!("{name}: expected {expected}, got {width}")));
            }
            channel_mult.push(width / model_channels);
            if self.has(&format!("input_blocks.{block}.1.norm.weight")) {
                attends.push(1 << level);
            }
        }
        let first = "input_blocks.1.0.emb_layers.1.weight";
        let scale_shift = self.size(first, 0)? == 2 * channel_mult[0] * model_channels;
        let residual_blocks = (blocks / levels - 1) as i64;
        let mut config = UNetConfig::new(channels, model_channels, residual_blocks, channel_mult, attends);
        config.use_scale_shift_norm = scale_shift;
        config.conv_resample = resampling != Resampling::Pooling;
        config.resblock_updown = resampling == Resampling::Residual;
        config.num_classes = self.optional("label_emb.weight")?;
        config.n_embed = self.optional("id_predictor.1.weight")?;
        if self.has("middle_block.1.proj_in.weight") {
            let block = |index| format!("middle_block.1.transformer_blocks.{index}.norm1.weight");
            config.use_spatial_transformer = true;
            config.transformer_depth = self.count(block) as i64;
            config.context_dim = Some(self.size("middle_block.1.transformer_blocks.0.attn2.to_k.weight", 1)?);
        }
        Ok(config)
    }

    fn optional(&self, name: &str) -> Result<Option<i64>> {
        if self.has(name) { self.size(name, 0).map(Some) } else { Ok(None) }
    }

    /// Counts the levels by the layers that resample between them.
    fn levels(&self) -> (usize, Resampling) {
        let count = |leaf: &str| {
            // After the residual block or its attention.
            let named = |name: &&String| {
                let mut parts = name.splitn(4, '.');
                parts.next() == Some("output_blocks")
                    && parts.nth(1).is_some_and(|place| place == "1" || place == "2")
                    && parts.next() == Some(leaf)
            };
            self.0.keys().filter(named).count()
        };
        let (convolutions, residual) = (count("conv.weight"), count("in_layers.2.weight"));
        if residual > 0 {
            return (residual + 1, Resampling::Residual);
        }
        if convolutions > 0 {
            return (convolutions + 1, Resampling::Convolution);
        }
        // A block of average pooling has no weights and leaves a gap in the names.
        let blocks = self.count(|index| format!("output_blocks.{index}.0.in_layers.0.weight"));
        let empty = |index: &usize| !self.has(&format!("input_blocks.{index}.0.in_layers.0.weight"));
        let gaps = (1..blocks).filter(empty).count();
        (gaps + 1, if gaps > 0 { Resampling::Pooling } else { Resampling::Convolution })
    }
}

/// Resampling between levels.
#[derive(PartialEq, Eq)]
enum Resampling {
    Convolution,
    Residual,
    Pooling,
}
