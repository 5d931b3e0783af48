//! Reading of LoRA files.

use std::collections::BTreeMap;
use std::path::Path;
use std::result::Result as Or;

use ldm_checkpoint::{Checkpoint, Shapes};
use ldm_core::{Error, Result};

use super::module::{other, parse};
use super::module_file::ModuleFile;
use super::names::Names;
use super::peft_metadata::PeftMetadata;
use super::update::Update;
use crate::LatentDiffusionConfig;

/// Updates of a model's weights, by the names of the weights.
#[derive(Debug, Default)]
pub struct Lora {
    /// The update of each weight.
    pub updates: BTreeMap<String, Update>,
}

/// The names of a module's tensors, by their roles.
pub(super) type ModuleTensors = BTreeMap<&'static str, String>;

/// Names listed in an error.
const LISTED: usize = 10;

impl Lora {
    /// Reads a file for the model of `config`, whose weights have `shapes`.
    ///
    /// Names are kohya's, with diffusers' or CompVis' modules in them (`lora_unet_…`, `lora_te_…`), or
    /// diffusers' (`unet.….lora_A.weight`, and three older forms). Alpha defaults to the rank. LoHa, LoKr and DoRA have
    /// LyCORIS' names; DoRA also PEFT's.
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
        let mut updates = BTreeMap::new();
        let mut wrong = Vec::new();
        for (module, parts) in modules {
            let weight = &known[&module];
            let module_file = ModuleFile { checkpoint: &checkpoint, module: &module, parts: &parts };
            let factors = module_file.factors(&metadata)?;
            let magnitude = module_file.magnitude(&shapes[weight])?;
            let misshaped = module_file.has_magnitude() && magnitude.is_none();
            let update = Update { factors, magnitude };
            if misshaped || !update.fits(&shapes[weight]) {
                wrong.push(format!("{module}: {} for {:?}", module_file.sizes(), &shapes[weight]));
            }
            if updates.insert(weight.clone(), update).is_some() {
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
        Ok(Self { updates })
    }
}

/// The names of each module's tensors, by the module's name in the file.
fn modules(checkpoint: &Checkpoint) -> Or<BTreeMap<String, ModuleTensors>, String> {
    let mut modules: BTreeMap<String, ModuleTensors> = BTreeMap::new();
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
