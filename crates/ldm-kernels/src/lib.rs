#![doc = include_str!("../README.md")]
#![allow(unsafe_code)] // vector instructions and pointers; each block says why it is sound
#![allow(clippy::inline_always)] // a kernel is one function with the instructions of its level, see `simd`

mod attention;
mod buffer;
mod conv3x3;
mod element;
mod gelu;
mod group_norm;
mod level;
mod linear;
mod pack;
mod product;
mod simd;
mod threads;

pub use attention::{AttentionSize, attention, attention_bf16, has_bf16_products};
pub use conv3x3::{Conv3x3, Conv3x3Epilogue, Conv3x3Prologue, ImageSize, conv3x3, conv3x3_bf16};
pub use group_norm::{
    GroupNormParameters, ScaleShift, group_norm, group_norm_bf16, group_norm_scale_shift,
    group_norm_scale_shift_bf16,
};
pub use level::Level;
pub use linear::{LinearParameters, linear, linear_geglu};
pub use threads::{OneThread, Threads};
