//! Optimizer, EMA, learning-rate schedule, loss scale.

mod adamw;
mod ema;
mod learning_rate;
mod loss_scale;

pub(crate) use adamw::copy_named;
pub use adamw::{AdamW, AdamWConfig, found_inf, grad_scale};
pub use ema::{Ema, EmaConfig};
pub use learning_rate::{LearningRate, LearningRateCycles};
pub use loss_scale::LossScale;
