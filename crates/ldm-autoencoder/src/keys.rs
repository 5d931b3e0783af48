//! Mapping to diffusers' state dict of a first stage.

use ldm_checkpoint::{KeyMap, StateDictMapping, TensorChange};
use ldm_core::Result;

use crate::config::FirstStageConfig;
use crate::diffusers::expressible;
use crate::encoder_config::{AttentionType, EncoderConfig};

/// Returns the mapping between the state dicts of this first stage and of diffusers' `AutoencoderKL` or `VQModel`.
///
/// In diffusers, decoder levels count from the smallest, and the 1×1 convolutions of attention are linear layers (weights
/// `[C, C]` for `[C, C, 1, 1]`). The attention names before diffusers 0.15 are accepted too. `quant_conv`,
/// `post_quant_conv` and `quantize.embedding` have the same names.
///
/// # Errors
/// [`ldm_core::Error::Invalid`] with the key, if diffusers has no such model.
pub fn diffusers_layout(config: &FirstStageConfig) -> Result<StateDictMapping> {
    let net = expressible(config)?;
    let mut names = FirstStageKeys::default();
    names.half("encoder", net, net.num_res_blocks);
    names.half("decoder", net, net.num_res_blocks + 1);
    let keys = KeyMap::new(names.modules, pairs(&LEAVES)).with_older(pairs(&OLDER));
    Ok(StateDictMapping { keys, changes: names.changes })
}

/// Names below a module: diffusers' and ours.
const LEAVES: [(&str, &str); 6] = [
    ("conv_shortcut", "nin_shortcut"),
    ("group_norm", "norm"),
    ("to_q", "q"),
    ("to_k", "k"),
    ("to_v", "v"),
    ("to_out.0", "proj_out"),
];
const OLDER: [(&str, &str); 4] = [("query", "q"), ("key", "k"), ("value", "v"), ("proj_attn", "proj_out")];

fn pairs(names: &[(&str, &str)]) -> Vec<(String, String)> {
    names.iter().map(|(theirs, ours)| ((*theirs).to_owned(), (*ours).to_owned())).collect()
}

#[derive(Default)]
struct FirstStageKeys {
    modules: Vec<(String, String)>,
    changes: Vec<(String, TensorChange)>,
}

impl FirstStageKeys {
    fn module(&mut self, theirs: String, ours: String) {
        self.modules.push((theirs, ours));
    }

    /// Adds the encoder or the decoder, with `blocks` residual blocks per level.
    fn half(&mut self, half: &str, net: &EncoderConfig, blocks: i64) {
        let last = net.levels() - 1;
        for level in 0..=last {
            let (theirs, ours, sampler) = if half == "encoder" {
                (format!("{half}.down_blocks.{level}"), format!("{half}.down.{level}"), "downsample")
            } else {
                (format!("{half}.up_blocks.{}", last - level), format!("{half}.up.{level}"), "upsample")
            };
            let attends = net.encoder_attention(level) == AttentionType::Vanilla;
            for block in 0..blocks {
                self.module(format!("{theirs}.resnets.{block}"), format!("{ours}.block.{block}"));
                if attends {
                    let place = format!("{ours}.attn.{block}");
                    self.attention(format!("{theirs}.attentions.{block}"), place, net.channels(level));
                }
            }
            self.module(format!("{theirs}.{sampler}rs.0"), format!("{ours}.{sampler}"));
        }
        for (theirs, ours) in [("resnets.0", "block_1"), ("resnets.1", "block_2")] {
            self.module(format!("{half}.mid_block.{theirs}"), format!("{half}.mid.{ours}"));
        }
        if net.attention() == AttentionType::Vanilla {
            let place = format!("{half}.mid.attn_1");
            self.attention(format!("{half}.mid_block.attentions.0"), place, net.channels(last));
        }
        self.module(format!("{half}.conv_norm_out"), format!("{half}.norm_out"));
    }

    fn attention(&mut self, theirs: String, ours: String, channels: i64) {
        for part in ["q", "k", "v", "proj_out"] {
            let native = vec![channels, channels, 1, 1];
            let change = TensorChange::Reshaped { native, mapped: vec![channels, channels] };
            self.changes.push((format!("{ours}.{part}.weight"), change));
        }
        self.module(theirs, ours);
    }
}
