//! LoRA: low-rank updates of a model's weights in a separate file (Hu et al. 2021), and its relatives LoHa, LoKr and
//! DoRA, which are read and merged.
//!
//! The update of a weight `W` `[out, in]` is `alpha/r · B·A`, with `A` `[r, in]` ("down") and `B` `[out, r]` ("up"); in
//! a convolution `A` has its kernel and `B` the kernel 1. [`Lora`] reads files in the namings of kohya-ss and
//! diffusers, and writes kohya's; [`Merge`] adds the updates to weights, so that sampling does not depend on them.

mod adapter;
mod factor_matrix;
mod lora_path;
mod merge;
mod module;
mod module_file;
mod names;
mod peft_metadata;
mod read;
mod update;
mod write;

pub use adapter::Adapter;
pub use factor_matrix::FactorMatrix;
pub use lora_path::LoraFile;
pub use merge::Merge;
pub use read::Lora;
pub use update::{Factors, Magnitude, Update};
