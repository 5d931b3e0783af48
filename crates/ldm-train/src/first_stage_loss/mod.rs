//! What a first stage is trained for: pixels, looks, a critic, and a latent that stays in bounds.

mod adversarial;
mod adversarial_config;
mod config;
mod critic;
mod discriminator;
mod norm;

pub(crate) use adversarial::{Adversarial, Pair};
pub use adversarial_config::{AdversarialLoss, CriticLoss, PerceptualLoss};
pub use config::{LossConfig, PixelLoss, ReconstructionLoss};
pub use discriminator::{Discriminator, DiscriminatorConfig};
