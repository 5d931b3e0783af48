//! Normalization layers.

use ldm_libtorch::cuda_kernels::{self, NormExtras};
use ldm_libtorch::kernels::{self, GroupNormTensors};
use tch::nn::{self, Init, Module, Path};
use tch::{Kind, Tensor};

use super::{NormInput, NormStats, silu};
use crate::{Error, Result};

const GROUPS: i64 = 32;

/// Group normalization in 32 groups (Wu & He 2018); parameters `weight` and `bias` `[C]`.
///
/// The autoencoder and the spatial transformer use eps 1e-6, the U-Net 1e-5 (CompVis `model.py:38`,
/// `attention.py:77`, `diffusionmodules/util.py:202`). Mean and variance are computed in f32 for any dtype of the input, so
/// weights in half precision need no cast here.
///
/// Autocast differs by device. On the CPU the norm returns the dtype of its input. On CUDA libtorch's norm is among the
/// operations that autocast runs in f32 (libtorch's `autocast_mode.h`): it casts its input, returns f32, and the f32 map is
/// what the backward pass keeps, so that training in bf16 or f16 needs the memory of f32 for the maps of its norms. The
/// kernels of `ldm_libtorch::cuda_kernels` keep the input's dtype.
#[derive(Debug)]
pub struct GroupNorm {
    weight: Tensor,
    bias: Tensor,
    eps: f64,
}

impl GroupNorm {
    /// Creates the layer for `channels`.
    ///
    /// # Errors
    /// [`Error::Invalid`] when 32 does not divide `channels`.
    pub fn new(vs: &Path, channels: i64, eps: f64) -> Result<Self> {
        if channels <= 0 || channels % GROUPS != 0 {
            let expected = format!("a multiple of {GROUPS}");
            return Err(Error::expected("channels of a group norm", expected, channels));
        }
        let weight = vs.var("weight", &[channels], Init::Const(1.));
        let bias = vs.var("bias", &[channels], Init::Const(0.));
        Ok(Self { weight, bias, eps })
    }
}

impl GroupNorm {
    /// x·sigmoid(x) of the normalized `x`.
    pub fn forward_silu(&self, x: &Tensor) -> Tensor {
        self.cuda(x, NormExtras { silu: true, ..NormExtras::default() })
            .or_else(|| kernels::group_norm(x, self.tensors(), true))
            .unwrap_or_else(|| silu(self.libtorch(x)))
    }

    /// [`forward_silu`](Self::forward_silu) of a sum; with `scale_shift` x·sigmoid(x) of norm(sum)·(1 + scale) + shift.
    ///
    /// # Shapes
    /// - `input`: `[B, C, h, w]`, or with 1 or 3 axes for its positions
    /// - `scale_shift`: `[B, 2C]`, scale, then shift
    ///
    /// Dhariwal & Nichol 2021, eq. 3 (AdaGN). CompVis `openaimodel.py:271`.
    pub fn forward_silu_of(&self, input: &NormInput<'_>, scale_shift: Option<&Tensor>) -> Tensor {
        if let Some(y) = self.cuda(&input.map, NormExtras { scale_shift, silu: true, ..input.extras() }) {
            return y;
        }
        let x = input.sum();
        let Some(scale_shift) = scale_shift else { return self.forward_silu(&x) };
        let mut size = scale_shift.size();
        size.resize(x.dim(), 1); // [B, 2C, 1, 1]
        let halves = scale_shift.view(size.as_slice()).chunk(2, 1);
        silu(x.apply(self) * (&halves[0] + 1.) + &halves[1])
    }

    /// The kernel for CUDA; none where it does not serve `x`.
    fn cuda(&self, x: &Tensor, extras: NormExtras<'_>) -> Option<Tensor> {
        if !cuda_kernels::serves(x) {
            return None;
        }
        cuda_kernels::group_norm(&self.in_kind(x), self.tensors(), extras)
    }

    /// The normalization of a given `x` as a scale and a shift of each channel; none where our kernels cannot compute it.
    pub(super) fn scale_shift(&self, x: &Tensor) -> Option<kernels::ScaleShift> {
        kernels::group_norm_scale_shift(x, self.tensors())
    }

    fn tensors(&self) -> GroupNormTensors<'_> {
        GroupNormTensors { groups: GROUPS, weight: &self.weight, bias: &self.bias, eps: self.eps }
    }

    fn libtorch(&self, x: &Tensor) -> Tensor {
        let (weight, bias) = (&self.weight, &self.bias);
        self.in_kind(x).group_norm(GROUPS, Some(weight), Some(bias), self.eps, true)
    }

    /// `x` in a dtype that goes with the weights: autocast keeps f32 weights with bf16 activations; on the CPU the weights must
    /// have the input's dtype or f32.
    fn in_kind(&self, x: &Tensor) -> Tensor {
        let kind = self.weight.kind();
        if x.kind() == kind || kind == Kind::Float { x.shallow_clone() } else { x.to_kind(kind) }
    }

    /// Normalizes with local, recorded or replayed statistics: the mean and 1/deviation, `[B, groups]`, in the weights'
    /// dtype.
    ///
    /// # Panics
    /// When fewer norms were recorded than are replayed.
    pub fn forward_by(&self, x: &Tensor, stats: &mut NormStats) -> Tensor {
        match stats {
            NormStats::Local => self.forward(x),
            NormStats::Record(recorded) => {
                let x = x.to_kind(self.weight.kind());
                // Unlike `group_norm`, `native_group_norm` needs a contiguous input on a GPU.
                let x = if x.device().is_cuda() { x.contiguous() } else { x };
                let (batch, channels, height, width) = x.size4().expect("[B, C, h, w]");
                let (weight, bias) = (Some(&self.weight), Some(&self.bias));
                let (normed, mean, scale) =
                    x.native_group_norm(weight, bias, batch, channels, height * width, GROUPS, self.eps);
                recorded.push([mean, scale]);
                normed
            }
            NormStats::Replay(recorded) => {
                let [mean, scale] = recorded.next().expect("as many norms as were recorded");
                let channels = self.weight.size()[0];
                let each = |of: &Tensor| {
                    of.repeat_interleave_self_int(channels / GROUPS, 1, None).to_kind(Kind::Float)
                };
                let scale = each(scale) * &self.weight; //     [B, C]
                let shift = &self.bias - each(mean) * &scale;
                let kind = self.weight.kind();
                let [scale, shift] = [scale, shift].map(|of| of.unsqueeze(-1).unsqueeze(-1).to_kind(kind));
                x.to_kind(kind) * scale + shift
            }
        }
    }
}

impl Module for GroupNorm {
    fn forward(&self, x: &Tensor) -> Tensor {
        self.cuda(x, NormExtras::default())
            .or_else(|| kernels::group_norm(x, self.tensors(), false))
            .unwrap_or_else(|| self.libtorch(x))
    }
}

/// Creates a layer normalization over the last axis, eps 1e-5; parameters `weight` and `bias` `[features]`.
pub fn layer_norm(vs: &Path, features: i64) -> nn::LayerNorm {
    nn::layer_norm(vs, vec![features], nn::LayerNormConfig::default())
}
