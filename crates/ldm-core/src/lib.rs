//! Types and functions shared by all crates of the workspace.
//!
//! - [`Error`] and [`Mismatch`]: errors of the outside world; bugs panic.
//! - [`config`]: strict YAML; [`device`]: devices and dtypes by name.
//! - [`Prompt`]: the inputs of a generation; [`Conditioning`]: the tensors the U-Net is conditioned on.
//! - [`NoiseSource`]: the source of all randomness.
//! - [`upload`], [`pin`]: copies to a device, without waiting for CUDA.
//! - [`image`]: conversion between tensors and images; [`channels`]: gray, alpha, RGB; [`PngTexts`]: text chunks.
//! - [`text`]: text files; [`terminal`]: their text on a terminal; [`json`]: numbers of JSON files, NaN and Inf among them; [`files`]: atomic writes;
//!   [`FileContent`]: files that may be replaced; [`FolderLock`]: exclusive folders.
//! - [`diffusers`]: fields of the `config.json` of diffusers.
//! - [`Tiles`]: overlapping tiles of large feature maps.
//! - [`resources`]: additional files of models and metrics.
//! - [`nn`]: layers shared by the networks.

pub mod channels;
mod conditioning;
pub mod config;
pub mod device;
pub mod diffusers;
mod error;
mod file_content;
pub mod files;
pub mod image;
pub mod json;
mod lock;
pub mod memory;
pub mod nn;
pub mod noise;
mod png_texts;
mod prompt;
pub mod resources;
pub mod signals;
mod size;
mod temporary_file;
pub mod terminal;
pub mod text;
mod tiles;

pub use conditioning::Conditioning;
pub use error::{Error, Mismatch, Result};
pub use file_content::FileContent;
pub use ldm_libtorch::{pin, upload};
pub use lock::FolderLock;
pub use noise::NoiseSource;
pub use png_texts::PngTexts;
pub use prompt::{LayoutBox, Prompt};
pub use size::{MAX_LAYERS, MAX_SIZE, check_multiple};
pub use tiles::{Tile, Tiles};

#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;
