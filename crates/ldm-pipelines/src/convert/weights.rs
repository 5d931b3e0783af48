//! Weights of a source, written under other names.

use std::collections::BTreeMap;

use ldm_checkpoint::{Checkpoint, Shapes, StateDictMapping, Streamed, TensorInfo};
use ldm_core::nn::skip_init;
use ldm_core::{Error, Result};
use tch::{Device, Kind, Tensor};

use super::ConvertOptions;
use super::blend::Blend;
use crate::lora::Merge;
use crate::{FirstStageModel, LatentDiffusion, ModelConfig, ModelSource};

/// The weights of a model, checked to be complete and not yet read.
pub(super) struct Weights {
    checkpoint: Checkpoint,
    kind: Option<Kind>,
    blend: Option<Blend>,
    merge: Merge,
    /// The buffers of the schedule, and the scale where it was measured.
    pub(super) buffers: Vec<(String, Tensor)>,
    /// The scale factor of the latents.
    pub(super) scale_factor: f64,
}

impl Weights {
    /// Checks the weights of the source against its config.
    pub(super) fn of(source: &ModelSource, options: &ConvertOptions) -> Result<Self> {
        let (checkpoint, buffers, scale_factor, merge) = match &source.config {
            ModelConfig::LatentDiffusion(config) => {
                let (weights, schedule) =
                    LatentDiffusion::check(config, source.checkpoint.clone(), options.ema)?;
                let buffers = schedule.buffers().into_iter();
                let mut buffers: Vec<(String, Tensor)> =
                    buffers.map(|(name, values)| (name.to_owned(), Tensor::from_slice(&values))).collect();
                let mut scale_factor = config.scale_factor;
                if config.scale_by_std {
                    scale_factor = measured(&source.checkpoint)?;
                }
                if config.scale_by_std || source.measured {
                    buffers.push(("scale_factor".into(), Tensor::from(scale_factor as f32)));
                }
                let merge = Merge::read(&options.loras, config, &weights.shapes())?;
                (weights, buffers, scale_factor, merge)
            }
            ModelConfig::Classifier(_) => {
                let why = "expected a diffusion model or a first stage, got a classifier, which has only one format";
                return Err(Error::format(source.checkpoint.path(), why));
            }
            alone => {
                if let Some(lora) = options.loras.first() {
                    let why = "expected a diffusion model to merge the LoRA into, got a first stage alone";
                    return Err(Error::format(&lora.path, why));
                }
                (first_stage_weights(alone, source.checkpoint.clone())?, Vec::new(), 1., Merge::default())
            }
        };
        let blend = options.merge.as_ref();
        let blend = blend.map(|merge| Blend::of(merge, source, options.ema, scale_factor)).transpose()?;
        Ok(Self { checkpoint, kind: options.kind, blend, merge, buffers, scale_factor })
    }

    /// All weights under CompVis' names.
    pub(super) fn native(&self) -> Vec<Streamed<'_>> {
        let names = self.checkpoint.names();
        names.map(|name| self.streamed(name, name.to_owned(), self.info(name), Ok)).collect()
    }

    /// Copies of the weights below `root`, below `other`.
    pub(super) fn copied<'a>(&'a self, root: &str, other: &str) -> Vec<Streamed<'a>> {
        let below = self.checkpoint.names().filter_map(|name| Some((name, name.strip_prefix(root)?)));
        below.map(|(name, rest)| self.streamed(name, format!("{other}{rest}"), self.info(name), Ok)).collect()
    }

    /// The weights below `root` under the names and shapes of `layout`.
    pub(super) fn mapped<'a>(&'a self, root: &str, layout: &'a StateDictMapping) -> Vec<Streamed<'a>> {
        let mut streamed = Vec::new();
        for name in self.checkpoint.names() {
            let Some(native) = name.strip_prefix(root) else { continue };
            let info = self.info(name);
            let alone = Shapes::from([(native.to_owned(), info.shape)]);
            for (theirs, shape) in layout.mapped_shapes(&alone) {
                let info = TensorInfo { shape, kind: info.kind };
                let (native, wanted) = (native.to_owned(), theirs.clone());
                streamed.push(self.streamed(name, theirs, info, move |tensor| {
                    let changed = layout.to_mapped(&[(native.clone(), tensor)])?;
                    let found = changed.into_iter().find(|(name, _)| *name == wanted);
                    found
                        .map(|(_, tensor)| tensor)
                        .ok_or_else(|| Error::invalid(format!("no tensor {wanted}")))
                }));
            }
        }
        streamed
    }

    /// Metadata to export: class names, step and epoch.
    pub(super) fn metadata(&self) -> BTreeMap<String, String> {
        let exported = ["classes", "box_classes", "label_classes", "global_step", "epoch"];
        let all = self.checkpoint.metadata().iter();
        all.filter(|(key, _)| exported.contains(&key.as_str()))
            .map(|(key, value)| (key.clone(), value.clone()))
            .collect()
    }

    /// The shape, and the dtype of the output.
    fn info(&self, name: &str) -> TensorInfo {
        let TensorInfo { shape, kind } = self.checkpoint.info(name).expect("a name of the checkpoint");
        TensorInfo { shape, kind: self.kind.filter(|_| is_floating(kind)).unwrap_or(kind) }
    }

    fn streamed<'a>(
        &'a self,
        source: &'a str,
        name: String,
        info: TensorInfo,
        change: impl Fn(Tensor) -> Result<Tensor> + 'a,
    ) -> Streamed<'a> {
        let kind = info.kind;
        let make = move || {
            let tensor = self.checkpoint.tensor(source)?;
            let blended = self
                .blend
                .as_ref()
                .map_or(Ok(tensor.shallow_clone()), |blend| blend.apply(source, &tensor))?;
            change(cast(source, &self.merge.apply(source, blended), kind)?)
        };
        Streamed { name, info, make: Box::new(make) }
    }
}

/// The weights of a first stage alone, checked against its config.
pub(super) fn first_stage_weights(config: &ModelConfig, checkpoint: Checkpoint) -> Result<Checkpoint> {
    let config = config.first_stage().expect("every other model is a first stage");
    let model = skip_init(|| FirstStageModel::new(&config, Device::Cpu))?;
    let weights = checkpoint.without(&["loss.", "model_ema."]);
    weights.check(&model.vs)?;
    Ok(weights)
}

/// Returns true for weights: integers are counters and flags.
pub(super) fn is_floating(kind: Kind) -> bool {
    matches!(
        kind,
        Kind::Double | Kind::Float | Kind::Half | Kind::BFloat16 | Kind::Float8e4m3fn | Kind::Float8e5m2
    )
}

/// Casts a tensor; refused where a finite value overflows.
fn cast(name: &str, tensor: &Tensor, kind: Kind) -> Result<Tensor> {
    let cast = tensor.to_kind(kind);
    let lost = |cast: &Tensor| cast.isfinite().logical_not().logical_and(&tensor.isfinite()).any();
    if range(kind) >= range(tensor.kind()) || lost(&cast).int64_value(&[]) == 0 {
        return Ok(cast);
    }
    let largest = tensor.abs().max().double_value(&[]);
    Err(Error::invalid(format!(
        "tensor `{name}`: expected values in the range of {kind:?}, got {largest:.3e}; try another --dtype"
    )))
}

/// The order of a dtype's range.
fn range(kind: Kind) -> u8 {
    match kind {
        Kind::Double => 2,
        Kind::Float | Kind::BFloat16 => 1,
        _ => 0,
    }
}

/// Reads the measured scale factor of the latents.
pub(crate) fn measured(checkpoint: &Checkpoint) -> Result<f64> {
    if !checkpoint.contains("scale_factor") {
        let why = "scale_by_std: expected a tensor `scale_factor` in the file, got none";
        return Err(Error::format(checkpoint.path(), why));
    }
    let factor = checkpoint.number("scale_factor")?;
    if factor > 0. {
        Ok(factor)
    } else {
        Err(Error::format(
            checkpoint.path(),
            format!("scale_factor: expected a positive number, got {factor}"),
        ))
    }
}
