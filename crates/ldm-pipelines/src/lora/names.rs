//! Names of modules in LoRA files.

use std::collections::BTreeMap;

use ldm_checkpoint::{KeyMap, Shapes, StateDictMapping};

use crate::LatentDiffusionConfig;

const UNET: &str = "model.diffusion_model.";
const TEXT: &str = "cond_stage_model.";

/// Names of a network's modules in LoRA files.
#[derive(Debug)]
struct LoraNetwork {
    /// Prefix of our names.
    root: &'static str,
    /// Prefixes of kohya's names: the one written, and others that are read.
    kohya: &'static [&'static str],
    /// Prefixes of diffusers' names.
    dotted: &'static [&'static str],
    /// Our names to diffusers', where diffusers has such a network.
    diffusers_keys: Option<KeyMap>,
    /// Weights of another shape in diffusers, which have our names.
    changed: Vec<String>,
}

/// The names of a model's modules in LoRA files.
#[derive(Debug)]
pub(super) struct Names([LoraNetwork; 2]);

impl Names {
    pub(super) fn of(config: &LatentDiffusionConfig) -> Self {
        let unet = ldm_unet::diffusers_layout(config.unet()).ok();
        let text = ldm_conditioning::diffusers_layout(&config.cond_stage_config).ok();
        // diffusers' converter writes `lora_te1_` for models with one text encoder.
        // `lycoris_` is of LyCORIS without kohya's trainer.
        Self([
            LoraNetwork::new(UNET, &["lora_unet_", "lycoris_"], &["unet.", ""], unet),
            LoraNetwork::new(TEXT, &["lora_te_", "lora_te1_"], &["text_encoder."], text),
        ])
    }

    /// The name of a weight's module in kohya's scheme, from diffusers' name where there is one, else ours. None for a
    /// weight of neither network.
    pub(super) fn written(&self, weight: &str) -> Option<String> {
        let (network, module) = self.module(weight)?;
        let name = network.diffusers_name(module).unwrap_or_else(|| module.to_owned());
        Some(format!("{}{}", network.kohya[0], name.replace('.', "_")))
    }

    /// The weights of `shapes` by all names of their modules.
    pub(super) fn known(&self, shapes: &Shapes) -> BTreeMap<String, String> {
        let mut known = BTreeMap::new();
        for (weight, _) in shapes.iter().filter(|(_, shape)| shape.len() >= 2) {
            let Some((network, module)) = self.module(weight) else { continue };
            for spelling in network.spellings(module) {
                known.entry(spelling).or_insert_with(|| weight.clone());
            }
        }
        known
    }

    fn module<'a>(&self, weight: &'a str) -> Option<(&LoraNetwork, &'a str)> {
        let module = weight.strip_suffix(".weight")?;
        self.0.iter().find_map(|network| Some((network, module.strip_prefix(network.root)?)))
    }
}

impl LoraNetwork {
    fn new(
        root: &'static str,
        kohya: &'static [&'static str],
        dotted: &'static [&'static str],
        layout: Option<StateDictMapping>,
    ) -> Self {
        let changed =
            layout.iter().flat_map(|layout| &layout.changes).map(|(name, _)| name.clone()).collect();
        Self { root, kohya, dotted, diffusers_keys: layout.map(|layout| layout.keys.inverse()), changed }
    }

    /// The diffusers name of a module.
    fn diffusers_name(&self, module: &str) -> Option<String> {
        let weight = format!("{module}.weight");
        let keys = self.diffusers_keys.as_ref().filter(|_| !self.changed.contains(&weight))?;
        keys.apply(&weight).strip_suffix(".weight").map(str::to_owned)
    }

    /// All names of a module; the first is the one written.
    fn spellings(&self, module: &str) -> Vec<String> {
        let mut names: Vec<String> = self.diffusers_name(module).into_iter().collect();
        // transformers 5 has no `text_model` prefix in CLIP.
        let bare = names.first().and_then(|name| name.strip_prefix("text_model.")).map(str::to_owned);
        names.extend(bare);
        names.push(module.to_owned());
        let older: Vec<String> = names.iter().filter_map(|name| older(name)).collect();
        let join = |roots: &'static [&'static str], name: &str| {
            let name = name.to_owned();
            roots.iter().map(move |root| format!("{root}{name}"))
        };
        let kohya = names.iter().flat_map(|name| join(self.kohya, &name.replace('.', "_")));
        let dotted = names.iter().chain(&older).flat_map(|name| join(self.dotted, name));
        kohya.chain(dotted).collect()
    }
}

/// The name of an attention layer in older diffusers, as in `…to_out_lora.down.weight`.
fn older(name: &str) -> Option<String> {
    let ends = [
        (".to_out.0", ".to_out"),
        (".self_attn.q_proj", ".self_attn.to_q"),
        (".self_attn.k_proj", ".self_attn.to_k"),
        (".self_attn.v_proj", ".self_attn.to_v"),
        (".self_attn.out_proj", ".self_attn.to_out"),
    ];
    ends.iter().find_map(|(now, then)| Some(format!("{}{then}", name.strip_suffix(now)?)))
}
