#![doc = include_str!("../README.md")]
//!
//! # What is here
//!
//! - A [`Dataset`] is a list of [`Example`]s, any of which can be made at any time in any thread: [`Images`] are stored
//!   pictures (folders, archives, WebDataset shards), [`scenes::Scenes`] are drawn.
//! - [`DatasetConfig`] names one in a config file, [`open_path`] on a command line.
//! - A [`Transform`] prepares stored pictures; [`resize`] is PIL's, to the last bit.
//! - A [`Loader`] makes [`Batch`]es ahead in threads. A batch depends on its [`Position`] and on nothing that came
//!   before it, so runs resume exactly; it does not depend on the number of workers.
//! - [`Info`] and [`unreadable`] say what a set holds, and what is wrong with it.

mod batch;
mod classes;
mod config;
mod dataset;
mod decode;
mod example;
mod images;
mod info;
mod listing;
mod loader;
mod maker;
mod order;
mod resize;
mod rng;
pub mod scenes;
mod shards;
mod sidecar;
mod store;
mod transform;
mod workers;

pub use batch::{Batch, collate};
pub use config::{DatasetConfig, open_path};
pub use dataset::{Dataset, Peek};
pub use example::{Example, Latent};
pub use images::{CaptionSource, ClassSource, Images, ImagesConfig};
pub use info::{Info, unreadable};
pub use loader::{Loader, LoaderConfig, Position};
pub use order::Order;
pub use resize::{Interpolation, resize};
pub use rng::Rng;
pub use transform::{Crop, Resize, Transform, TransformConfig};
