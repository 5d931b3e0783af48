//! What LoRA files call the modules of a model.

use std::collections::BTreeMap;

use ldm_checkpoint::{KeyMap, Shapes, StateDictMapping};

use crate::LatentDiffusionConfig;

const UNET: &str = "model.diffusion_model.";
const TEXT: &str = "cond_stage_model.";

/// What diffusers calls the modules of a network, where it has such a network.
#[derive(Debug)]
struct LoraNetwork {
    /// Before our names.
    root: &'static str,
    /// Before kohya's names: what is written, and what is read too.
    kohya: &'static [&'static str],
    /// Before diffusers' names.
    dotted: &'static [&'static str],
    /// From ours to theirs.
    unsupported_kind: Option<KeyMap>,
    /// Weights that are of another shape there, and so keep our names.
    changed: Vec<String>,
}

/// The names of a model's modules in LoRA files.
#[derive(Debug)]
pub(super) struct Names([LoraNetwork; 2]);

impl Names {
    pub(super) fn of(config: &LatentDiffusionConfig) -> Self {
        let unet = ldm_unet::diffusers_layout(config.unet()).ok();
        let text = ldm_conditioning::diffusers_layout(&config.cond_stage_config).ok();
        // `lora_te1_` is what diffusers' own converter writes for a model with one text encoder.
        Self([
            LoraNetwork::new(UNET, &["lora_unet_"], &["unet.", ""], unet),
            LoraNetwork::new(TEXT, &["lora_te_", "lora_te1_"], &["text_encoder."], text),
        ])
    }

    /// What kohya's scheme calls the module of a weight: diffusers' name of it where there is one, else ours. None
    /// where it is in neither network.
    pub(super) fn written(&self, weight: &str) -> Option<String> {
        let (network, module) = self.module(weight)?;
        let name = network.theirs(module).unwrap_or_else(|| module.to_owned());
        Some(format!("{}{}", network.kohya[0], name.replace('.', "_")))
    }

    /// The weights of `shapes` by every name that files have for their modules.
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
        Self { root, kohya, dotted, unsupported_kind: layout.map(|layout| layout.keys.inverse()), changed }
    }

    /// diffusers' name of our module.
    fn theirs(&self, module: &str) -> Option<String> {
        let weight = format!("{module}.weight");
        let keys = self.unsupported_kind.as_ref().filter(|_| !self.changed.contains(&weight))?;
        keys.apply(&weight).strip_suffix(".weight").map(str::to_owned)
    }

    /// Every name of our module; what is written is the first.
    fn spellings(&self, module: &str) -> Vec<String> {
        let mut names: Vec<String> = self.theirs(module).into_iter().collect();
        // transformers 5 has no `text_model` before CLIP's parts.
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

/// What older diffusers called a layer of an attention, in `…to_out_lora.down.weight`.
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
