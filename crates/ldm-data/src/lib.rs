#![doc = include_str!("../README.md")]
//!
//! # What is here
//!
//! - A [`Dataset`] is a list of [`Example`]s, any of which can be made at any time in any thread: [`Images`] are stored
//!   images (folders, archives, WebDataset shards), [`scenes::Scenes`] are drawn.
//! - [`DatasetConfig`] names one in a config file, [`open_path`] on a command line.
//! - A [`Transform`] prepares stored images; [`resize`] is PIL's, to the last bit. Its [`Placement`] does the same to a
//!   image's label map, mask and boxes.
//! - [`CaptionFile`], [`BoxesConfig`] and [`LabelMapsConfig`] read what is known of images; a [`TaskConfig`] makes a
//!   condition of them: small images, holes, one-hot maps.
//! - A [`Loader`] makes [`Batch`]es ahead in threads. A batch depends on its [`Position`] and on nothing that came
//!   before it, so runs resume exactly; it does not depend on the number of workers.
//! - [`Info`] and [`unreadable`] say what a set holds, and what is wrong with it.

mod annotate;
mod batch;
mod batch_builder;
mod boxes;
mod caption_file;
mod classes;
mod config;
mod contact_sheet;
mod cv_resize;
mod data_paths;
mod dataset;
mod decode;
mod degradation;
mod example;
mod floats;
mod images;
mod images_config;
mod info;
mod inpainting;
mod interpolation;
mod label_maps;
mod listing;
mod loader;
mod names;
mod order;
mod paired_files;
mod placement;
mod rank_sampler;
mod resize;
mod rng;
pub mod scenes;
mod shards;
mod sidecar;
mod store;
mod super_resolution;
mod task;
mod transform;
mod workers;

pub use batch::{Batch, collate};
pub use boxes::{BoxesByImage, BoxesConfig, read_boxes};
pub use caption_file::{CaptionFile, CaptionSource, Column, Missing};
pub use config::{DatasetConfig, open_path};
pub use contact_sheet::contact_sheet;
pub use data_paths::{DATA_FOLDER, DataPaths};
pub use dataset::{Dataset, Peek};
pub use example::{Condition, Example, Latent};
pub use images::Images;
pub use images_config::{ClassSource, ImagesConfig};
pub use info::{Info, unreadable};
pub use inpainting::{InpaintingConfig, Masks};
pub use interpolation::Interpolation;
pub use label_maps::{LabelMapsConfig, read_label_map, read_palette};
pub use loader::{Loader, LoaderConfig, Position};
pub use order::ShuffleSampler;
pub use paired_files::PairedFilesConfig;
pub use placement::Placement;
pub use resize::resize;
pub use rng::Rng;
pub use super_resolution::{Degradation, SuperResolutionConfig};
pub use task::TaskConfig;
pub use transform::{Crop, Resize, Transform, TransformConfig};
