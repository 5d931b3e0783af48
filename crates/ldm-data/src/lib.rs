//! Image sets and the loader that feeds them to training.
mod batch;
mod dataset;
mod example;
mod order;
mod rng;
pub mod scenes;

pub use batch::{Batch, collate};
pub use dataset::{Dataset, Peek};
pub use example::Example;
pub use order::Order;
pub use rng::Rng;
