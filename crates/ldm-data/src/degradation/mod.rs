//! BSRGAN's degradations: blur, shrink, noise and JPEG in random order (Zhang et al. 2021, "Designing a practical
//! degradation model for deep blind image super-resolution").
//!
//! Everything random is drawn first, into a [`Plan`]; what the plan does to an image is a function of both alone.

#[cfg(test)]
mod golden;
mod imresize;
mod jpeg;
mod kernel;
mod noise;
mod plan;

pub(crate) use plan::{Plan, Strength};
