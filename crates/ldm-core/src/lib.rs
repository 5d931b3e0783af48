//! The vocabulary of latent diffusion in one screen: what every other crate of the workspace shares.
//!
//! - [`Error`]: what can go wrong in the world; bugs panic.
//! - [`config`]: strict YAML; [`device`]: devices and dtypes by name.
//! - [`Prompt`]: what a person said; [`Conditioning`]: what the U-Net is told.
//! - [`NoiseSource`]: where randomness comes from; nothing else draws.
//! - [`image`]: tensors to images and back; [`files`]: files written whole or not at all.
//! - [`diffusers`]: how diffusers writes down what a model is made of.
//! - [`Tiles`]: large maps in parts; [`watermark`]: bytes hidden in an image.
//! - [`resources`]: where files lie that a model needs beside itself.
//! - [`nn`]: the layers both networks share; [`weights`]: checkpoints of every kind, loaded strictly.

mod conditioning;
pub mod config;
pub mod device;
pub mod diffusers;
mod error;
pub mod files;
pub mod image;
mod lock;
pub mod nn;
pub mod noise;
mod prompt;
pub mod resources;
mod size;
mod tiles;

pub use conditioning::Conditioning;
pub use error::{Error, Mismatch, Result};
pub use lock::FolderLock;
pub use noise::NoiseSource;
pub use prompt::{LayoutBox, Prompt};
pub use size::check_multiple;
pub use tiles::{Tile, Tiles};
