//! LoRA training: low-rank adapters of any layer of any model.
//!
//! For an adapted weight `W0` with factors `A` and `B` the layer uses `W = W0 + s·B·A` (Hu et al. 2021, eq. 3), which
//! is written into the layer's own variable once per step. The layers are unchanged, and so are gradient checkpointing,
//! autocast and memory formats. The backward pass computes `G = dL/dW`; `W` is linear in `A` for fixed `B`, and in `B`
//! for fixed `A`, so the chain rule reduces to two exact products: `dL/dA = s·Bᵀ·G` and `dL/dB = s·G·Aᵀ`. They become
//! gradients of `A` and `B` by the backward pass of `<A, dL/dA> + <B, dL/dB>`, in which they are constants.
//!
//! The cost is the memory of `W0` and of `G` for the adapted layers. Gradients of other layers are not computed.

use std::cell::Cell;
use std::collections::BTreeMap;
use std::sync::atomic::AtomicBool;

use ldm_checkpoint::Checkpoint;
use ldm_core::{Error, NoiseSource, Result};
use ldm_data::Batch;
use ldm_libtorch::autocast;
use ldm_pipelines::LatentDiffusionConfig;
use ldm_pipelines::lora::{Adapter, Lora};
use sha2::{Digest, Sha256};
use tch::{Device, Kind, Tensor};

use crate::config::SampleConfig;
use crate::objective::lora_config::{LoraConfig, TEXT_ENCODER};
use crate::objective::{
    Export, Exported, LatentEncoder, Loss, NamedTensors, Objective, Phase, Preview, StepInfo, Validate,
};
use crate::optim::copy_named;

/// The tensor of a checkpoint with the SHA-256 of the base.
const BASE: &str = "lora.base";

/// An objective whose model is frozen, with trained adapters.
pub struct LoraObjective {
    inner: Box<dyn Objective>,
    model: LatentDiffusionConfig,
    layers: Vec<AdaptedLayer>,
    /// SHA-256 of the frozen model, `[32]` u8; checkpoints hold only the adapters.
    base: Tensor,
    /// True if the adapters have changed since the weights were composed.
    stale: Cell<bool>,
}

/// An adapted weight, its base, and its adapter.
struct AdaptedLayer {
    name: String,
    /// The layer's variable.
    weight: Tensor,
    base: Tensor,
    adapter: Adapter,
}

impl std::fmt::Debug for LoraObjective {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let names: Vec<&str> = self.layers.iter().map(|layer| layer.name.as_str()).collect();
        f.debug_struct("LoraObjective").field("layers", &names).finish_non_exhaustive()
    }
}

impl LoraObjective {
    /// Freezes the model of `inner`, whose trained weights are loaded, and adds an adapter to every weight that
    /// `config` selects: `A` from U(±1/√in), as PyTorch's linear layers, and `B` zero, so that the model starts
    /// unchanged.
    ///
    /// # Errors
    /// [`Error::Invalid`] when no weight is selected, or with the layer whose dimensions the rank exceeds.
    pub fn new(
        inner: Box<dyn Objective>,
        model: &LatentDiffusionConfig,
        config: &LoraConfig,
        noise: &mut dyn NoiseSource,
    ) -> Result<Self> {
        config.check()?;
        let mut weights = inner.weights();
        weights.sort_by(|a, b| a.0.cmp(&b.0));
        let selected: Vec<&(String, Tensor)> =
            weights.iter().filter(|(name, _)| config.selects(name)).collect();
        let key = match selected.iter().any(|(name, _)| name.starts_with(TEXT_ENCODER)) {
            _ if selected.is_empty() => Some("targets"),
            false if config.text_encoder => Some("text_encoder"),
            _ => None,
        };
        if let Some(key) = key {
            return Err(Error::invalid(format!("train.lora.{key}: expected layers of this model, got none")));
        }
        for (name, weight) in &selected {
            let size = weight.size();
            let max = size[0].min(size[1..].iter().product());
            if config.rank > max {
                let rank = config.rank;
                return Err(Error::invalid(format!(
                    "train.lora.rank: expected at most {max} for `{name}` {size:?}, got {rank}"
                )));
            }
        }
        for (_, tensor) in &weights {
            let _ = tensor.set_requires_grad(false);
        }
        let layers = selected
            .into_iter()
            .map(|(name, weight)| AdaptedLayer::new(name, weight, config, noise))
            .collect();
        Ok(Self { base: fingerprint(&weights), inner, model: model.clone(), layers, stale: Cell::new(false) })
    }

    /// Composes the weights from base and adapters if the adapters have changed.
    fn compose(&self) {
        if self.stale.replace(false) {
            self.layers.iter().for_each(AdaptedLayer::compose);
        }
    }

    /// Runs `body` with weights composed from the current adapters, which may be their EMA; the next loss composes them
    /// again.
    fn composed<T>(&self, body: impl FnOnce(&dyn Objective) -> T) -> T {
        self.stale.set(true);
        self.compose();
        let result = body(&*self.inner);
        self.stale.set(true);
        result
    }

    fn factors(&self) -> NamedTensors {
        self.layers.iter().flat_map(AdaptedLayer::factors).collect()
    }
}

impl AdaptedLayer {
    fn new(name: &str, weight: &Tensor, config: &LoraConfig, noise: &mut dyn NoiseSource) -> Self {
        let size = weight.size();
        let mut down = size.clone();
        down[0] = config.rank;
        let mut up = vec![1; size.len()];
        (up[0], up[1]) = (size[0], config.rank);
        let bound = 1. / (down[1..].iter().product::<i64>() as f64).sqrt();
        let uniform = noise.uniform(down.iter().product(), weight).view(down.as_slice());
        let adapter = Adapter {
            down: (uniform * (2. * bound) - bound).set_requires_grad(true),
            up: Tensor::zeros(&up, (Kind::Float, weight.device())).set_requires_grad(true),
            alpha: config.alpha(),
        };
        let base = weight.detach().copy();
        let weight = weight.set_requires_grad(true);
        Self { name: name.to_owned(), weight, base, adapter }
    }

    fn compose(&self) {
        // In f32, not in the dtype of autocast, so that merging the adapters gives the trained weights.
        let _f32 = autocast(self.base.device(), Kind::Float);
        tch::no_grad(|| {
            let sum = &self.base + self.adapter.change(&self.base.size(), 1.);
            self.weight.detach().copy_(&sum);
        });
    }

    /// Returns a scalar whose gradient with respect to the factors is that of the loss; clears the gradient of the
    /// weight.
    fn surrogate(&mut self) -> Option<Tensor> {
        let gradient = self.weight.grad();
        if !gradient.defined() {
            return None;
        }
        let Adapter { down, up, .. } = &self.adapter;
        let (down_grad, up_grad) = tch::no_grad(|| {
            let scaled = gradient.flatten(1, -1) * self.adapter.scale(); // [out, in·kh·kw]
            (up.flatten(1, -1).tr().mm(&scaled), scaled.mm(&down.flatten(1, -1).tr()))
        });
        ldm_libtorch::forget_gradients(std::slice::from_ref(&self.weight));
        let product = |factor: &Tensor, grad: Tensor| factor.flatten(0, -1).dot(&grad.flatten(0, -1));
        Some(product(down, down_grad) + product(up, up_grad))
    }

    fn factors(&self) -> [(String, Tensor); 2] {
        let module = self.name.trim_end_matches(".weight");
        [("down", &self.adapter.down), ("up", &self.adapter.up)]
            .map(|(part, tensor)| (format!("lora.{module}.{part}"), tensor.shallow_clone()))
    }
}

impl Objective for LoraObjective {
    fn check_size(&self, size: [i64; 2]) -> Result<()> {
        self.inner.check_size(size)
    }

    fn activations(&self, size: [i64; 2], cached: bool) -> i64 {
        self.inner.activations(size, cached)
    }

    fn check_batch(&self, batch: &Batch) -> Result<()> {
        self.inner.check_batch(batch)
    }

    fn phases(&self) -> Vec<Phase> {
        vec![Phase::new("lora", self.factors())]
    }

    fn loss(&self, info: StepInfo, batch: &Batch, noise: &mut dyn NoiseSource) -> Result<Loss> {
        self.compose();
        self.inner.loss(info, batch, noise)
    }

    fn after_backward(&mut self, _phase: usize) {
        let parts: Vec<Tensor> = self.layers.iter_mut().filter_map(AdaptedLayer::surrogate).collect();
        if !parts.is_empty() {
            Tensor::stack(&parts, 0).sum(Kind::Float).backward();
        }
    }

    fn after_step(&mut self, noise: &mut dyn NoiseSource) {
        self.inner.after_step(noise);
        self.stale.set(true);
    }

    fn ema_parameters(&self) -> NamedTensors {
        self.factors()
    }

    /// The adapters, and the SHA-256 of their base.
    fn weights(&self) -> NamedTensors {
        let mut weights = vec![(BASE.to_owned(), self.base.shallow_clone())];
        weights.extend(self.factors());
        weights.sort_by(|a, b| a.0.cmp(&b.0));
        weights
    }

    fn load(&mut self, checkpoint: Checkpoint) -> Result<()> {
        if checkpoint.tensor(BASE)? != self.base {
            let message = "expected adapters of this base model, got adapters of another one; the model of \
                           train.init_from has changed";
            return Err(Error::format(checkpoint.path(), message));
        }
        copy_named(self.factors(), &checkpoint.without(&[BASE]))?;
        self.stale.set(true);
        Ok(())
    }

    fn notes(&self) -> Vec<String> {
        self.inner.notes()
    }

    fn as_validate(&self) -> Option<&dyn Validate> {
        self.inner.as_validate().map(|_| self as _)
    }

    fn as_preview(&self) -> Option<&dyn Preview> {
        self.inner.as_preview().map(|_| self as _)
    }

    fn as_export(&self) -> Option<&dyn Export> {
        Some(self)
    }

    /// That of the base: adapters do not change the first stage.
    fn as_latent_encoder(&self) -> Option<&dyn LatentEncoder> {
        self.inner.as_latent_encoder()
    }
}

impl Validate for LoraObjective {
    fn validate(&self, batches: &mut dyn Iterator<Item = Result<Batch>>) -> Result<Vec<(&'static str, f64)>> {
        self.composed(|inner| inner.as_validate().map_or(Ok(Vec::new()), |inner| inner.validate(batches)))
    }

    fn metrics(&self) -> Vec<&'static str> {
        self.inner.as_validate().map(Validate::metrics).unwrap_or_default()
    }
}

impl Preview for LoraObjective {
    fn check(&self, config: &SampleConfig) -> Result<()> {
        self.inner.as_preview().map_or(Ok(()), |inner| inner.check(config))
    }

    fn preview(&self, batch: &Batch, config: &SampleConfig, stop: &AtomicBool) -> Result<Tensor> {
        self.composed(|inner| {
            let none = || Error::invalid("expected an objective with previews, got none");
            inner.as_preview().ok_or_else(none)?.preview(batch, config, stop)
        })
    }
}

impl Export for LoraObjective {
    fn export(&self, ema: &[(String, Tensor)]) -> Result<Exported> {
        let ema: BTreeMap<&str, &Tensor> = ema.iter().map(|(name, tensor)| (name.as_str(), tensor)).collect();
        let mut lora = Lora::default();
        for layer in &self.layers {
            let [down, up] = layer
                .factors()
                .map(|(name, tensor)| ema.get(name.as_str()).map_or(tensor, |value| value.shallow_clone()));
            let adapter = Adapter { down, up, alpha: layer.adapter.alpha };
            lora.updates.insert(layer.name.clone(), adapter.into());
        }
        Ok(Exported::Lora { tensors: lora.tensors(&self.model)?, metadata: lora.metadata(&self.model) })
    }
}

/// SHA-256 of names, shapes, dtypes and values, `[32]` u8.
pub(super) fn fingerprint(weights: &[(String, Tensor)]) -> Tensor {
    const CHUNK: i64 = 1 << 20;
    let mut hash = Sha256::new();
    let mut buffer = Vec::new();
    for (name, tensor) in weights {
        hash.update(format!("{name} {:?} {:?}\n", tensor.size(), tensor.kind()));
        let flat = tensor.detach().flatten(0, -1);
        for start in (0..flat.numel() as i64).step_by(CHUNK as usize) {
            let part = flat.narrow(0, start, CHUNK.min(flat.numel() as i64 - start)).to_device(Device::Cpu);
            buffer.resize(part.numel() * part.kind().elt_size_in_bytes(), 0);
            part.contiguous().copy_data_u8(&mut buffer, part.numel());
            hash.update(&buffer);
        }
    }
    Tensor::from_slice(&hash.finalize())
}
