//! Cached latents: encoder outputs in a file, in place of images.

mod augmentations;
mod cache;
mod config;

pub use augmentations::Views;
pub use cache::{LatentCache, MadeOf};
pub(crate) use cache::{check, open_or_make};
pub use config::CacheLatents;
