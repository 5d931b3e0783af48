//! BSRGAN's degradations: blur, shrink, noise and JPEG in random order (Zhang et al. 2021, "Designing a practical
//! degradation model for deep blind image super-resolution").
//!
//! Everything random is drawn first, into a [`DegradationPlan`]; applying it to an image is then a pure function of
//! both.

#[cfg(test)]
mod golden;
mod jpeg;
mod kernel;
mod matlab_halving;
mod noise;
mod plan;

pub(crate) use plan::{DegradationPlan, Strength};
