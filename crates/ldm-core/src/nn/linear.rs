//! Linear layers.

use ldm_libtorch::cuda_kernels;
use ldm_libtorch::kernels::{self, LinearTensors};
use tch::nn::{Module, Path};
use tch::{Kind, Tensor};

use super::conv::uniform;
use super::{add, variable};

/// A linear layer; parameters `weight` `[K, C]` and, optionally, `bias` `[K]`.
///
/// On the CPU in f32 without gradients, products are those of `ldm-kernels`; all others are libtorch's.
#[derive(Debug)]
pub struct Linear {
    weight: Tensor,
    bias: Option<Tensor>,
}

/// Creates a linear layer, initialized as PyTorch's.
pub fn linear(vs: &Path, features_in: i64, features_out: i64, bias: bool) -> Linear {
    let init = uniform(features_in);
    // The bias first, in tch's order of random numbers.
    let bias = bias.then(|| variable(vs, "bias", &[features_out], init));
    Linear { weight: variable(vs, "weight", &[features_out, features_in], init), bias }
}

impl Linear {
    /// The dtype of the weight.
    pub fn kind(&self) -> Kind {
        self.weight.kind()
    }

    /// The weight, and the bias if there is one.
    pub fn parameters(&self) -> impl Iterator<Item = &Tensor> {
        std::iter::once(&self.weight).chain(&self.bias)
    }

    /// The layer of `x` `[…, C]`, plus `residual` `[…, K]`.
    pub fn plus(&self, x: &Tensor, residual: &Tensor) -> Tensor {
        kernels::linear(x, self.tensors(), Some(residual)).unwrap_or_else(|| add(x.apply(self), residual))
    }

    /// x·gelu(gate) of the outputs x and gate: `[…, C]` to `[…, K / 2]`. The exact GELU (Shazeer 2020; CompVis
    /// `attention.py:38`).
    pub fn geglu(&self, x: &Tensor) -> Tensor {
        kernels::linear_geglu(x, self.tensors()).unwrap_or_else(|| {
            let both = x.apply(self);
            cuda_kernels::geglu(&both).unwrap_or_else(|| {
                let halves = both.chunk(2, -1); // value, gate
                &halves[0] * halves[1].gelu("none")
            })
        })
    }

    fn tensors(&self) -> LinearTensors<'_> {
        LinearTensors { weight: &self.weight, bias: self.bias.as_ref() }
    }
}

impl Module for Linear {
    fn forward(&self, x: &Tensor) -> Tensor {
        project(x, &self.weight, self.bias.as_ref())
    }
}

/// `x·weightᵀ + bias`, as of a [`Linear`], for a weight `[K, C]` or that of a convolution of kernel 1, `[K, C, 1]`.
pub fn project(x: &Tensor, weight: &Tensor, bias: Option<&Tensor>) -> Tensor {
    kernels::linear(x, LinearTensors { weight, bias }, None).unwrap_or_else(|| {
        let weight = if weight.dim() == 3 { &weight.squeeze_dim(-1) } else { weight };
        x.linear(weight, bias)
    })
}
