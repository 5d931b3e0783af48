//! LoRA: a small change of a model's weights, kept in a file of its own (Hu et al. 2021).
//!
//! Of a weight `W` `[out, in]` the change is `alpha/r · B·A`, with `A` `[r, in]` ("down") and `B` `[out, r]` ("up"); of
//! a convolution `A` has its kernel and `B` the kernel 1. [`Lora`] reads such files in the namings of kohya-ss and of
//! diffusers, and writes kohya's; [`Merge`] adds what they hold to weights, so that sampling knows nothing of them.

mod adapter;
mod lora_path;
mod merge;
mod module;
mod names;
mod peft_metadata;
mod read;
mod write;

pub use adapter::Adapter;
pub use lora_path::LoraFile;
pub use merge::Merge;
pub use read::Lora;
