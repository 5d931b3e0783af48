#![doc = include_str!("../README.md")]
#![allow(unsafe_code)] // vector instructions and pointers; each block says why it is sound
#![allow(clippy::inline_always)] // a kernel is one function with the instructions of its level, see `simd`

mod attention;
mod buffer;
mod conv3x3;
mod geglu;
mod group_norm;
mod level;
mod product;
mod simd;
mod threads;

pub use attention::{AttentionSize, attention};
pub use conv3x3::{Conv3x3Epilogue, Conv3x3Prologue, Conv3x3Weights, ImageSize, conv3x3};
pub use geglu::geglu;
pub use group_norm::{GroupNormParameters, ScaleShift, group_norm, group_norm_scale_shift};
pub use level::Level;
pub use threads::{OneThread, Threads};
