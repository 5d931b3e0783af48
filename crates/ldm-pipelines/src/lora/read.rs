//! Reading of LoRA files.

use std::collections::BTreeMap;
use std::path::Path;
use std::result::Result as Or;

use ldm_checkpoint::{Checkpoint, Shapes};
use ldm_core::{Error, Result};

use super::adapter::Adapter;
use super::module::{AdapterTensor, other, parse};
use super::names::Names;
use super::peft_metadata::PeftMetadata;
use crate::LatentDiffusionConfig;

/// Updates of a model's weights, by the names of the weights.
#[derive(Debug, Default)]
pub struct Lora {
    /// The update of each weight.
    pub adapters: BTreeMap<String, Adapter>,
}

/// Names listed in an error.
const LISTED: usize = 10;

impl Lora {
    /// Reads a file for the model of `config`, whose weights have `shapes`.
    ///
    /// Names are kohya's, with diffusers' or CompVis' modules in them (`lora_unet_…`, `lora_te_…`), or
    /// diffusers' (`unet.….lora_A.weight`, and three older forms). Alpha defaults to the rank.
    ///
    /// # Errors
    /// As [`Checkpoint::open`]; [`Error::Format`] for another kind of adapter, and for modules that the model lacks or
    /// that have another shape, with their number and the first ten.
    pub fn read(path: &Path, config: &LatentDiffusionConfig, shapes: &Shapes) -> Result<Self> {
        let refuse = |why: String| Error::format(path, why);
        let checkpoint = Checkpoint::open(path)?;
        let metadata = PeftMetadata::of(checkpoint.metadata()).map_err(refuse)?;
        let known = Names::of(config).known(shapes);
        let modules = modules(&checkpoint).map_err(refuse)?;
        let unknown: Vec<&str> =
            modules.keys().filter(|module| !known.contains_key(*module)).map(String::as_str).collect();
        if !unknown.is_empty() {
            let (count, all, list) = (unknown.len(), modules.len(), list(&unknown));
            return Err(refuse(format!(
                "expected modules of the model, got {count} of {all} others ({list})"
            )));
        }
        let mut adapters = BTreeMap::new();
        let mut wrong = Vec::new();
        for (module, parts) in modules {
            let weight = &known[&module];
            let tensor = |part: AdapterTensor| match parts.get(&part) {
                Some(name) => checkpoint.finite(name),
                None => {
                    Err(refuse(format!("`{module}`: expected down (A) and up (B), got no {}", part.name())))
                }
            };
            let (down, up) = (tensor(AdapterTensor::Down)?, tensor(AdapterTensor::Up)?);
            let rank = down.size().first().copied().unwrap_or_default();
            let alpha = match parts.get(&AdapterTensor::Alpha) {
                Some(name) => checkpoint.number(name)?,
                None => metadata.alpha(&module, rank).unwrap_or(rank as f64),
            };
            let adapter = Adapter { down, up, alpha };
            if !adapter.fits(&shapes[weight]) {
                let (down, up, shape) = (adapter.down.size(), adapter.up.size(), &shapes[weight]);
                wrong.push(format!("{module}: {down:?} and {up:?} for {shape:?}"));
            }
            if adapters.insert(weight.clone(), adapter).is_some() {
                return Err(refuse(format!(
                    "`{module}`: expected one update, got two under different names"
                )));
            }
        }
        if !wrong.is_empty() {
            let (count, list) = (wrong.len(), list(&wrong));
            return Err(refuse(format!(
                "expected updates of the weights' shapes, got {count} of others ({list})"
            )));
        }
        Ok(Self { adapters })
    }
}

impl AdapterTensor {
    fn name(self) -> &'static str {
        match self {
            Self::Down => "down (A)",
            Self::Up => "up (B)",
            Self::Alpha => "alpha",
        }
    }
}

/// The names of each module's tensors, by the module's name in the file.
fn modules(checkpoint: &Checkpoint) -> Or<BTreeMap<String, BTreeMap<AdapterTensor, String>>, String> {
    let mut modules: BTreeMap<String, BTreeMap<AdapterTensor, String>> = BTreeMap::new();
    if let Some((name, kind)) = checkpoint.names().find_map(|name| Some((name, other(name)?))) {
        return Err(format!("expected a LoRA, got {kind}, which is not supported (tensor `{name}`)"));
    }
    for name in checkpoint.names() {
        let Some((module, part)) = parse(name) else {
            return Err(format!("expected tensors of a LoRA, got `{name}`"));
        };
        if modules.entry(module).or_default().insert(part, name.to_owned()).is_some() {
            return Err(format!("expected one tensor per role, got a second one, `{name}`"));
        }
    }
    if modules.is_empty() { Err("expected tensors of a LoRA, got none".into()) } else { Ok(modules) }
}

fn list(names: &[impl AsRef<str>]) -> String {
    let mut list: Vec<&str> = names.iter().take(LISTED).map(AsRef::as_ref).collect();
    if names.len() > LISTED {
        list.push("…");
    }
    list.join(", ")
}
