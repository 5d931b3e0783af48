//! Layers shared by the networks, with PyTorch's initialization.

pub mod attention;
mod conv;
mod conv2d;
mod embedding;
mod linear;
mod norm;
mod norm_input;
mod norm_stats;
mod reuse;
mod variable;

pub use conv::{conv1d_1x1, conv2d, conv2d_1x1, embedding, zero_conv1d_1x1, zero_conv2d};
pub use conv2d::{Added, Conv2d};
pub use embedding::TimestepEmbedding;
pub use linear::{Linear, linear, project};
pub use norm::{GroupNorm, layer_norm};
pub use norm_input::NormInput;
pub use norm_stats::NormStats;
pub use reuse::{add, silu};
pub use variable::{skip_init, variable};
