//! Cached latents: encoder outputs in a file, in place of images.

mod augmentations;
mod cache;
mod config;
mod decode_ahead;
mod fingerprint;
mod writer;

pub use augmentations::Augmentations;
pub use cache::LatentCache;
pub use config::CacheLatents;
pub use fingerprint::CacheFingerprint;
pub(crate) use writer::CacheWriter;
