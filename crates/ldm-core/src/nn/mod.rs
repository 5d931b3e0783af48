//! The layers both networks share, initialised as PyTorch initialises them.

pub mod attention;
mod conv;
mod embedding;
mod global;
mod norm;
mod reuse;
mod variable;

pub use conv::{conv1d_1x1, conv2d, conv2d_1x1, embedding, linear, zero_conv1d_1x1, zero_conv2d};
pub use embedding::timestep_embedding;
pub use global::Global;
pub use norm::{GroupNorm, layer_norm};
pub use reuse::{add, silu};
pub use variable::{unfilled, variable};
