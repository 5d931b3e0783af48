//! Normalisation.

use tch::nn::{self, Init, Module, Path};
use tch::{Kind, Tensor};

use crate::{Error, Result};

const GROUPS: i64 = 32;

/// Group normalisation in 32 groups (Wu & He 2018); parameters `weight` and `bias` `[C]`.
///
/// The autoencoder and the spatial transformer use eps 1e-6, the U-Net 1e-5 (CompVis `model.py:38`,
/// `attention.py:77`, `diffusionmodules/util.py:202`). libtorch takes mean and variance in f32 whatever the
/// dtype of the input, so half precision needs no cast here.
#[derive(Debug)]
pub struct GroupNorm {
    weight: Tensor,
    bias: Tensor,
    eps: f64,
}

impl GroupNorm {
    /// Over `channels`.
    ///
    /// # Errors
    /// [`Error::Invalid`] when 32 does not divide `channels`.
    pub fn new(vs: &Path, channels: i64, eps: f64) -> Result<Self> {
        if channels <= 0 || channels % GROUPS != 0 {
            return Err(Error::invalid(format!(
                "group norm needs channels divisible by {GROUPS}, got: {channels}"
            )));
        }
        let weight = vs.var("weight", &[channels], Init::Const(1.));
        let bias = vs.var("bias", &[channels], Init::Const(0.));
        Ok(Self { weight, bias, eps })
    }
}

impl Module for GroupNorm {
    fn forward(&self, x: &Tensor) -> Tensor {
        // Autocast keeps weights in f32 beside bf16 activations; on the CPU both must be of one kind or f32.
        let (weight, bias) = (&self.weight, &self.bias);
        if x.kind() == weight.kind() || weight.kind() == Kind::Float {
            x.group_norm(GROUPS, Some(weight), Some(bias), self.eps, true)
        } else {
            x.to_kind(weight.kind()).group_norm(GROUPS, Some(weight), Some(bias), self.eps, true)
        }
    }
}

/// Layer normalisation over the last axis, eps 1e-5; parameters `weight` and `bias` `[features]`.
pub fn layer_norm(vs: &Path, features: i64) -> nn::LayerNorm {
    nn::layer_norm(vs, vec![features], nn::LayerNormConfig::default())
}
