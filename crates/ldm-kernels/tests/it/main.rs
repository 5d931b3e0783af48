//! Each kernel at each level against f64.
#![allow(clippy::unwrap_used, clippy::cast_lossless)]

mod attention;
mod bf16;
mod conv3x3;
mod linear;
mod norms;
mod reference;
