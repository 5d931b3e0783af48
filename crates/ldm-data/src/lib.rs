#![doc = include_str!("../README.md")]
//!
//! # Contents
//!
//! - A [`Dataset`] is a list of [`Example`]s, any of which can be made at any time in any thread: [`StoredImages`] are stored
//!   images (folders, archives, WebDataset shards), [`scenes::Scenes`] are synthetic.
//! - [`DatasetConfig`] is a dataset in a config file, [`open_path`] opens one from the command line; [`DataPaths`]
//!   looks up relative paths.
//! - A [`Transform`] prepares stored images; [`resize`] is bit for bit that of PIL. Its [`Placement`] applies to the
//!   label map, mask and boxes of an image as well.
//! - [`CaptionFile`], [`BoxesConfig`] and [`LabelMapsConfig`] read labels of images; a [`TaskConfig`] makes a
//!   condition: low-resolution images, masks, one-hot maps.
//! - A [`Loader`] builds [`Batch`]es ahead in threads. A batch depends on its [`Position`] and on nothing before it, so
//!   that runs resume exactly; it does not depend on the number of workers.
//! - [`Info`] summarizes a dataset, [`unreadable`] finds its unreadable images.
//!
//! # A dataset of your own
//!
//! A type with [`Dataset::len`] and [`Dataset::get`] can be loaded and trained on:
//!
//! ```
//! use std::sync::Arc;
//!
//! use ldm_data::{Dataset, Example, Loader, LoaderConfig, Position};
//!
//! /// Gray images, lighter with the index.
//! struct Grays;
//!
//! impl Dataset for Grays {
//!     fn len(&self) -> usize {
//!         256
//!     }
//!
//!     fn get(&self, index: usize, _seed: u64) -> ldm_core::Result<Example> {
//!         let value = index as f32 / 127.5 - 1.; // in [-1, 1]
//!         Ok(Example { class: Some((index / 128) as i64), ..Example::new(vec![value; 3 * 8 * 8], [3, 8, 8]) })
//!     }
//! }
//!
//! # fn main() -> ldm_core::Result<()> {
//! let mut loader = Loader::new(Arc::new(Grays), LoaderConfig::new(16, 23), Position::default())?;
//! let batch = loader.next().expect("an endless loader")?;
//! assert_eq!(batch.images.size(), [16, 3, 8, 8]);
//! # Ok(())
//! # }
//! ```

mod contact_sheet;
mod dataset;
mod dataset_config;
mod degradation;
mod example;
mod image;
mod info;
mod labels;
mod loader;
mod prior_preservation;
mod rng;
pub mod scenes;
mod source;
mod stored;
mod task;
mod text_panel;

pub use crate::image::decode::IMAGE_EXTENSIONS;
pub use crate::image::interpolation::Interpolation;
pub use crate::image::placement::Placement;
pub use crate::image::resize::resize;
pub use crate::image::transform::{Crop, Resize, Transform, TransformConfig};
pub use contact_sheet::{SheetNames, condition_sheet, contact_sheet};
pub use dataset::{Dataset, Peek, first_readable, none_readable, refuse_passed_over};
pub use dataset_config::{DatasetConfig, open_path};
pub use example::{Condition, Example, Latent};
pub use info::{Info, unreadable};
pub use labels::boxes::{BoxesByImage, BoxesConfig, read_boxes};
pub use labels::caption_file::{CaptionFile, CaptionSource, Column};
pub use labels::imagenet::ImageNetConfig;
pub use labels::label_maps::{LabelMapsConfig, read_label_map, read_palette};
pub use loader::batch::{Batch, collate};
pub use loader::config::{LoaderConfig, Position};
pub use loader::shuffle_sampler::ShuffleSampler;
pub use loader::{Loader, LoaderHead};
pub use prior_preservation::PriorPreservation;
pub use rng::Rng;
pub use source::data_paths::{DATA_FOLDER, DataPaths};
pub use source::missing::Missing;
pub use source::paired_files::PairedFilesConfig;
pub use stored::balance::BalanceConfig;
pub use stored::images::StoredImages;
pub use stored::images_config::{ClassSource, ImagesConfig};
pub use stored::neighbors_config::NeighborsConfig;
pub use task::TaskConfig;
pub use task::inpainting::{InpaintingConfig, Masks};
pub use task::super_resolution::{Degradation, SuperResolutionConfig};
