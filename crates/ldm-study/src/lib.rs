//! Studies of latent diffusion models: [`evaluation`] of image sets, the [`study`] of downsampling factors,
//! [`retrieval`] from databases of embeddings, [`inspect`]ion of files, and a [`demo`].
//!
//! Nothing here prints: messages and progress go to a [`Reporter`], results are values.

mod context;
pub mod demo;
pub mod evaluation;
pub mod inspect;
mod page;
mod reporter;
pub mod retrieval;
mod spread;
pub mod study;

pub use reporter::{Reporter, Silent};
pub use spread::Spread;

#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;
