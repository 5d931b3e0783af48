//! Convolutions and linear layers under PyTorch's names and initialisation.

use tch::nn::{self, Conv1D, Conv2D, ConvConfig, Init, Linear, LinearConfig, Path};

/// PyTorch draws weights and biases of these layers from U(±1/√fan_in) (`kaiming_uniform_(a=√5)`); tch's own
/// default is √6 times as wide.
fn uniform(fan_in: i64) -> Init {
    let bound = 1. / (fan_in as f64).sqrt();
    Init::Uniform { lo: -bound, up: bound }
}

fn config(kernel: i64, stride: i64, padding: i64, channels_in: i64) -> ConvConfig {
    let init = uniform(channels_in * kernel * kernel);
    ConvConfig { stride, padding, ws_init: init, bs_init: init, ..ConvConfig::default() }
}

fn zeros() -> ConvConfig {
    let zero = Init::Const(0.);
    ConvConfig { ws_init: zero, bs_init: zero, ..ConvConfig::default() }
}

/// A convolution with bias and a square kernel; parameters `weight` `[out, in, k, k]` and `bias` `[out]`.
pub fn conv2d(
    vs: &Path,
    channels_in: i64,
    channels_out: i64,
    kernel: i64,
    stride: i64,
    padding: i64,
) -> Conv2D {
    nn::conv2d(vs, channels_in, channels_out, kernel, config(kernel, stride, padding, channels_in))
}

/// A "same" convolution of stride 1 that starts as zero: the residual branch it ends is then no change at all.
pub fn zero_conv2d(vs: &Path, channels_in: i64, channels_out: i64, kernel: i64) -> Conv2D {
    nn::conv2d(vs, channels_in, channels_out, kernel, ConvConfig { padding: kernel / 2, ..zeros() })
}

/// A convolution of kernel 1 over `[B, C, L]`; parameters `weight` `[out, in, 1]` and `bias` `[out]`.
pub fn conv1d_1x1(vs: &Path, channels_in: i64, channels_out: i64) -> Conv1D {
    nn::conv1d(vs, channels_in, channels_out, 1, config(1, 1, 0, channels_in))
}

/// [`conv1d_1x1`] that starts as zero.
pub fn zero_conv1d_1x1(vs: &Path, channels_in: i64, channels_out: i64) -> Conv1D {
    nn::conv1d(vs, channels_in, channels_out, 1, zeros())
}

/// A linear layer; parameters `weight` `[out, in]` and, with `bias`, `bias` `[out]`.
pub fn linear(vs: &Path, features_in: i64, features_out: i64, bias: bool) -> Linear {
    let init = uniform(features_in);
    nn::linear(vs, features_in, features_out, LinearConfig { ws_init: init, bs_init: Some(init), bias })
}
