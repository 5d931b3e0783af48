//! Components of a diffusers folder: `config.json` and weights.

use std::path::{Path, PathBuf};

use ldm_checkpoint::{Checkpoint, StateDictMapping};
use ldm_core::{Error, Result};
use serde_json::Value;

use crate::diffusers::scheduler::read_json;

/// File names of weights in diffusers and transformers, by preference.
const FORMS: [(&str, &str); 3] = [
    ("diffusion_pytorch_model", "safetensors"),
    ("model", "safetensors"),
    ("diffusion_pytorch_model", "bin"),
];
const OLDER: (&str, &str) = ("pytorch_model", "bin");

/// The variant of non-EMA weights.
const NON_EMA: &str = "non_ema";

/// Finds the file of a component's weights, or its index, and its variant.
///
/// safetensors are preferred to `.bin`, and files to an index. A variant (`….fp16.safetensors`) is used where there is
/// no other file; without `ema`, `non_ema` is preferred.
pub(crate) fn weights_of(folder: &Path, ema: bool) -> Result<(PathBuf, Option<String>)> {
    let forms = || FORMS.into_iter().chain([OLDER]);
    let found = |variant: Option<&str>| {
        forms()
            .flat_map(move |(base, end)| names(base, end, variant))
            .map(|name| folder.join(name))
            .find(|path| path.is_file())
    };
    if !ema && let Some(path) = found(Some(NON_EMA)) {
        return Ok((path, Some(NON_EMA.into())));
    }
    if let Some(path) = found(None) {
        return Ok((path, None));
    }
    let mut variants = Vec::new();
    for entry in std::fs::read_dir(folder).map_err(Error::io(folder))? {
        let name = entry.map_err(Error::io(folder))?.file_name().to_string_lossy().into_owned();
        variants.extend(forms().filter_map(|(base, end)| variant_of(&name, base, end).map(str::to_owned)));
    }
    // EMA weights first, then by name.
    variants.sort_by_key(|name| (name == NON_EMA, name.clone()));
    for variant in variants {
        if let Some(path) = found(Some(&variant)) {
            return Ok((path, Some(variant)));
        }
    }
    let (base, end) = FORMS[0];
    Err(Error::format(
        folder,
        format!("expected {base}.{end}, model.{end}, or these as .bin in the folder, got none"),
    ))
}

fn names(base: &str, end: &str, variant: Option<&str>) -> [String; 2] {
    match variant {
        None => [format!("{base}.{end}"), format!("{base}.{end}.index.json")],
        Some(variant) => [format!("{base}.{variant}.{end}"), format!("{base}.{end}.index.{variant}.json")],
    }
}

/// The variant in a file name: `fp16` of `model.fp16.safetensors` and of `model.safetensors.index.fp16.json`.
fn variant_of<'a>(name: &'a str, base: &str, end: &str) -> Option<&'a str> {
    let rest = name.strip_prefix(base)?.strip_prefix('.')?;
    let variant = match rest.strip_prefix(end).and_then(|rest| rest.strip_prefix(".index.")) {
        Some(index) => index.strip_suffix(".json")?,
        None => rest.strip_suffix(end)?.strip_suffix('.')?,
    };
    let word = |c: char| c.is_ascii_alphanumeric() || c == '_' || c == '-';
    (!variant.is_empty() && variant.chars().all(word)).then_some(variant)
}

/// A component: its config, and its weights under CompVis' names.
pub(crate) struct Component<C> {
    pub(crate) config: C,
    pub(crate) checkpoint: Checkpoint,
    pub(crate) variant: Option<String>,
}

impl<C> Component<C> {
    /// Reads the component in `folder`; `config` and `layout` interpret its `config.json`.
    pub(crate) fn read(
        folder: &Path,
        ema: bool,
        config: impl Fn(&Value) -> Result<C>,
        layout: impl Fn(&C) -> Result<StateDictMapping>,
    ) -> Result<Self> {
        let (weights, variant) = weights_of(folder, ema)?;
        Ok(Self { variant, ..Self::of_file(&weights, config, layout)? })
    }

    /// Reads the component of the file `weights`, with `config.json` next to it.
    pub(crate) fn of_file(
        weights: &Path,
        config: impl Fn(&Value) -> Result<C>,
        layout: impl Fn(&C) -> Result<StateDictMapping>,
    ) -> Result<Self> {
        let path = weights.with_file_name("config.json");
        let named = |error: Error| match error {
            Error::Invalid(message) => Error::config(&path, message),
            other => other,
        };
        let config = config(&read_json(&path)?).map_err(named)?;
        let layout = layout(&config).map_err(named)?;
        Ok(Self { config, checkpoint: Checkpoint::open(weights)?.into_native(&layout), variant: None })
    }
}
