//! The weights of a source, to be written under any names.

use std::collections::BTreeMap;

use ldm_checkpoint::{Checkpoint, Shapes, StateDictMapping, Streamed, TensorInfo};
use ldm_core::nn::skip_init;
use ldm_core::{Error, Result};
use tch::{Device, Kind, Tensor};

use super::Converting;
use crate::lora::Merge;
use crate::{FirstStageModel, LatentDiffusion, ModelConfig, ModelSource};

/// Weights that are a model's, every one of them and no others; none is read yet.
pub(super) struct Weights {
    checkpoint: Checkpoint,
    kind: Option<Kind>,
    merge: Merge,
    /// The buffers of the schedule, and the scale where it was measured.
    pub(super) buffers: Vec<(String, Tensor)>,
    /// What latents are multiplied by.
    pub(super) scale_factor: f64,
}

impl Weights {
    /// Checks that the source is what its config says.
    pub(super) fn of(source: &ModelSource, how: &Converting) -> Result<Self> {
        let (checkpoint, buffers, scale_factor, merge) = match &source.config {
            ModelConfig::LatentDiffusion(config) => {
                let (weights, schedule) = LatentDiffusion::check(config, source.checkpoint.clone(), how.ema)?;
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
                let merge = Merge::read(&how.loras, config, &weights.shapes())?;
                (weights, buffers, scale_factor, merge)
            }
            ModelConfig::Classifier(_) => {
                let why = "a classifier of noisy latents, which is read everywhere as it is: there is nothing to convert";
                return Err(Error::format(source.checkpoint.path(), why));
            }
            alone => {
                if let Some(lora) = how.loras.first() {
                    let why = "a LoRA changes a diffusion model, and this is a first stage alone";
                    return Err(Error::format(&lora.path, why));
                }
                let config = alone.first_stage().expect("every other model is a first stage");
                let model = skip_init(|| FirstStageModel::new(&config, Device::Cpu))?;
                let weights = source.checkpoint.clone().without(&["loss.", "model_ema."]);
                weights.check(&model.vs)?;
                (weights, Vec::new(), 1., Merge::default())
            }
        };
        Ok(Self { checkpoint, kind: how.kind, merge, buffers, scale_factor })
    }

    /// Every weight under CompVis' name.
    pub(super) fn native(&self) -> Vec<Streamed<'_>> {
        let names = self.checkpoint.names();
        names.map(|name| self.streamed(name, name.to_owned(), self.info(name), Ok)).collect()
    }

    /// The weights below `root` once more, below another.
    pub(super) fn copied<'a>(&'a self, root: &str, other: &str) -> Vec<Streamed<'a>> {
        let below = self.checkpoint.names().filter_map(|name| Some((name, name.strip_prefix(root)?)));
        below.map(|(name, rest)| self.streamed(name, format!("{other}{rest}"), self.info(name), Ok)).collect()
    }

    /// The weights below `root` as another implementation keeps them.
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

    /// `classes`: their names; of a first stage's file nothing else is handed on.
    pub(super) fn metadata(&self) -> BTreeMap<String, String> {
        let kept = ["classes", "box_classes", "label_classes", "global_step", "epoch"];
        let all = self.checkpoint.metadata().iter();
        all.filter(|(key, _)| kept.contains(&key.as_str()))
            .map(|(key, value)| (key.clone(), value.clone()))
            .collect()
    }

    /// Shape, and the dtype it is written in.
    fn info(&self, name: &str) -> TensorInfo {
        let TensorInfo { shape, kind } = self.checkpoint.info(name).expect("a name of the checkpoint");
        let floating = matches!(
            kind,
            Kind::Double | Kind::Float | Kind::Half | Kind::BFloat16 | Kind::Float8e4m3fn | Kind::Float8e5m2
        );
        TensorInfo { shape, kind: self.kind.filter(|_| floating).unwrap_or(kind) }
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
            let merged = self.merge.apply(source, self.checkpoint.tensor(source)?);
            change(cast(source, &merged, kind)?)
        };
        Streamed { name, info, make: Box::new(make) }
    }
}

/// The tensor in another dtype; refused where that turns numbers into none.
fn cast(name: &str, tensor: &Tensor, kind: Kind) -> Result<Tensor> {
    let cast = tensor.to_kind(kind);
    let lost = |cast: &Tensor| cast.isfinite().logical_not().logical_and(&tensor.isfinite()).any();
    if range(kind) >= range(tensor.kind()) || lost(&cast).int64_value(&[]) == 0 {
        return Ok(cast);
    }
    let largest = tensor.abs().max().double_value(&[]);
    Err(Error::invalid(format!(
        "tensor `{name}` has values up to {largest:.3e}, which are beyond {kind:?}: choose another --dtype"
    )))
}

/// How far a dtype's numbers go, in order.
fn range(kind: Kind) -> u8 {
    match kind {
        Kind::Double => 2,
        Kind::Float | Kind::BFloat16 => 1,
        _ => 0,
    }
}

fn measured(checkpoint: &Checkpoint) -> Result<f64> {
    let missing =
        |_| Error::format(checkpoint.path(), "scale_by_std is set and the file has no tensor `scale_factor`");
    Ok(checkpoint.tensor("scale_factor").map_err(missing)?.double_value(&[]))
}
