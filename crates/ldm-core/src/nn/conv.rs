//! Convolutions, linear layers and embeddings under PyTorch's names and initialization.

use tch::Device;
use tch::nn::{self, Conv1D, ConvConfig, Embedding, EmbeddingConfig, Init, Path, VarStore};

use super::Conv2d;
use super::variable::{skips_init, variable};

/// PyTorch's initialization of weights and biases of these layers, U(±1/√fan_in) (`kaiming_uniform_(a=√5)`); tch's default
/// is √6 times as wide.
pub(super) fn uniform(fan_in: i64) -> Init {
    let bound = 1. / (fan_in as f64).sqrt();
    Init::Uniform { lo: -bound, up: bound }
}

fn config(kernel: i64, stride: i64, padding: i64, channels_in: i64) -> ConvConfig {
    let init = uniform(channels_in * kernel * kernel);
    ConvConfig { stride, padding, ws_init: init, bs_init: init, ..ConvConfig::default() }
}

/// Creates a convolution with bias and a square kernel; parameters `weight` `[out, in, k, k]` and `bias` `[out]`.
pub fn conv2d(
    vs: &Path,
    channels_in: i64,
    channels_out: i64,
    kernel: i64,
    stride: i64,
    padding: i64,
) -> Conv2d {
    conv(vs, channels_in, channels_out, kernel, config(kernel, stride, padding, channels_in))
}

/// Creates a convolution of kernel 1; parameters `weight` `[out, in, 1, 1]` and, with `bias`, `bias` `[out]`.
pub fn conv2d_1x1(vs: &Path, channels_in: i64, channels_out: i64, bias: bool) -> Conv2d {
    conv(vs, channels_in, channels_out, 1, ConvConfig { bias, ..config(1, 1, 0, channels_in) })
}

/// The same config with zeros as initialization.
fn zero_init(config: ConvConfig) -> ConvConfig {
    let zero = Init::Const(0.);
    ConvConfig { ws_init: zero, bs_init: zero, ..config }
}

/// A convolution with its parameters, without initialization inside [`skip_init`](super::skip_init).
fn conv(vs: &Path, channels_in: i64, channels_out: i64, kernel: i64, config: ConvConfig) -> Conv2d {
    // The bias first, in tch's order of random numbers.
    let bias = config.bias.then(|| variable(vs, "bias", &[channels_out], config.bs_init));
    let weight = variable(vs, "weight", &[channels_out, channels_in, kernel, kernel], config.ws_init);
    Conv2d::new(weight, bias, config.stride, config.padding)
}

/// Creates a "same" convolution of stride 1 initialized to zero, so that its residual branch initially has no effect.
pub fn zero_conv2d(vs: &Path, channels_in: i64, channels_out: i64, kernel: i64) -> Conv2d {
    conv(
        vs,
        channels_in,
        channels_out,
        kernel,
        ConvConfig { padding: kernel / 2, ..zero_init(ConvConfig::default()) },
    )
}

/// Creates a convolution of kernel 1 over `[B, C, L]`; parameters `weight` `[out, in, 1]` and `bias` `[out]`.
pub fn conv1d_1x1(vs: &Path, channels_in: i64, channels_out: i64) -> Conv1D {
    conv1d(vs, channels_in, channels_out, config(1, 1, 0, channels_in))
}

/// [`conv1d_1x1`] initialized to zero.
pub fn zero_conv1d_1x1(vs: &Path, channels_in: i64, channels_out: i64) -> Conv1D {
    conv1d(vs, channels_in, channels_out, zero_init(ConvConfig::default()))
}

/// [`conv`] of kernel 1 over `[B, C, L]`.
fn conv1d(vs: &Path, channels_in: i64, channels_out: i64, config: ConvConfig) -> Conv1D {
    if !skips_init() {
        return nn::conv1d(vs, channels_in, channels_out, 1, config);
    }
    let mut layer = nn::conv1d(VarStore::new(Device::Cpu).root(), 1, 1, 1, zero_init(config));
    layer.bs = Some(variable(vs, "bias", &[channels_out], config.bs_init));
    layer.ws = variable(vs, "weight", &[channels_out, channels_in, 1], config.ws_init);
    layer
}

/// Creates an embedding table; parameter `weight` `[count, width]` with `init` (PyTorch: N(0, 1)).
pub fn embedding(vs: &Path, count: i64, width: i64, init: Init) -> Embedding {
    let config = EmbeddingConfig { ws_init: init, ..EmbeddingConfig::default() };
    if !skips_init() {
        return nn::embedding(vs, count, width, config);
    }
    let zero = EmbeddingConfig { ws_init: Init::Const(0.), ..config };
    let mut layer = nn::embedding(VarStore::new(Device::Cpu).root(), 1, 1, zero);
    layer.ws = variable(vs, "weight", &[count, width], init);
    layer
}
