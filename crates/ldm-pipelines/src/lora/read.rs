//! A LoRA file, held against the model it is for.

use std::collections::BTreeMap;
use std::path::Path;
use std::result::Result as Or;

use ldm_checkpoint::{Checkpoint, Shapes};
use ldm_core::{Error, Result};
use tch::Tensor;

use super::adapter::Adapter;
use super::module::{AdapterTensor, other, parse};
use super::names::Names;
use super::peft_metadata::PeftMetadata;
use crate::LatentDiffusionConfig;

/// Changes of a model's weights, by our names of these weights.
#[derive(Debug, Default)]
pub struct Lora {
    /// A change for each weight that is changed.
    pub adapters: BTreeMap<String, Adapter>,
}

/// How many names a sentence lists.
const LISTED: usize = 10;

impl Lora {
    /// Reads a file for the model of `config`, whose weights have `shapes`.
    ///
    /// Read are kohya's names, with diffusers' or CompVis' modules in them (`lora_unet_…`, `lora_te_…`), and
    /// diffusers' (`unet.….lora_A.weight`, and three older forms). Where no alpha is given it is the rank.
    ///
    /// # Errors
    /// As [`Checkpoint::open`]; [`Error::Format`] when the file is another kind of adapter, or changes modules that
    /// the model has not, or not of that shape: the first ten of them and how many there are.
    pub fn read(path: &Path, config: &LatentDiffusionConfig, shapes: &Shapes) -> Result<Self> {
        let refuse = |why: String| Error::format(path, why);
        let checkpoint = Checkpoint::open(path)?;
        let told = PeftMetadata::of(checkpoint.metadata()).map_err(refuse)?;
        let known = Names::of(config).known(shapes);
        let modules = modules(&checkpoint).map_err(refuse)?;
        let unknown: Vec<&str> =
            modules.keys().filter(|module| !known.contains_key(*module)).map(String::as_str).collect();
        if !unknown.is_empty() {
            let (count, all, list) = (unknown.len(), modules.len(), list(&unknown));
            return Err(refuse(format!("{count} of its {all} modules are not in this model ({list})")));
        }
        let mut adapters = BTreeMap::new();
        let mut wrong = Vec::new();
        for (module, parts) in modules {
            let weight = &known[&module];
            let tensor = |part: AdapterTensor| match parts.get(&part) {
                Some(name) => checkpoint.tensor(name),
                None => Err(refuse(format!("half of a change: `{module}` has no {}", part.name()))),
            };
            let (down, up) = (tensor(AdapterTensor::Down)?, tensor(AdapterTensor::Up)?);
            let rank = down.size().first().copied().unwrap_or_default();
            let alpha = match parts.get(&AdapterTensor::Alpha) {
                Some(name) => {
                    number(&checkpoint.tensor(name)?).map_err(|why| refuse(format!("`{name}`: {why}")))?
                }
                None => told.alpha(&module, rank).unwrap_or(rank as f64),
            };
            let adapter = Adapter { down, up, alpha };
            if !adapter.fits(&shapes[weight]) {
                let (down, up, shape) = (adapter.down.size(), adapter.up.size(), &shapes[weight]);
                wrong.push(format!("{module}: {down:?} and {up:?} for {shape:?}"));
            }
            if adapters.insert(weight.clone(), adapter).is_some() {
                return Err(refuse(format!("two changes of one module, under two names: `{module}`")));
            }
        }
        if !wrong.is_empty() {
            let (count, list) = (wrong.len(), list(&wrong));
            return Err(refuse(format!(
                "{count} changes are of another shape than the model's weights ({list})"
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

/// The tensors of each module, by the names of both in the file.
fn modules(checkpoint: &Checkpoint) -> Or<BTreeMap<String, BTreeMap<AdapterTensor, String>>, String> {
    let mut modules: BTreeMap<String, BTreeMap<AdapterTensor, String>> = BTreeMap::new();
    if let Some((name, what)) = checkpoint.names().find_map(|name| Some((name, other(name)?))) {
        return Err(format!(
            "{what}, which is not supported: expected a LoRA's two factors (tensor `{name}`)"
        ));
    }
    for name in checkpoint.names() {
        let Some((module, part)) = parse(name) else {
            return Err(format!("no LoRA, or not it alone: tensor `{name}`"));
        };
        if modules.entry(module).or_default().insert(part, name.to_owned()).is_some() {
            return Err(format!("two tensors for one place, one of them is `{name}`"));
        }
    }
    if modules.is_empty() { Err("no LoRA: it has no tensors".into()) } else { Ok(modules) }
}

fn number(tensor: &Tensor) -> Or<f64, String> {
    if tensor.numel() != 1 {
        return Err(format!("expected one number, got the shape {:?}", tensor.size()));
    }
    let value = tensor.reshape([1]).double_value(&[0]);
    if value.is_finite() { Ok(value) } else { Err(format!("expected a number, got {value}")) }
}

fn list(names: &[impl AsRef<str>]) -> String {
    let mut list: Vec<&str> = names.iter().take(LISTED).map(AsRef::as_ref).collect();
    if names.len() > LISTED {
        list.push("…");
    }
    list.join(", ")
}
