//! Loss functions of the objectives.

mod adversarial;
mod adversarial_config;
mod diffusion_loss;
mod discriminator;
mod loss_config;
mod lpips_with_discriminator;
mod norm;
mod reconstruction;

pub use adversarial_config::{AdversarialLoss, DiscriminatorLoss, PerceptualLoss};
pub use diffusion_loss::{DiffusionLoss, min_snr_weights};
pub use discriminator::{Discriminator, DiscriminatorConfig};
pub use loss_config::{LossConfig, PixelLoss, ReconstructionLoss};
pub(crate) use lpips_with_discriminator::{LpipsWithDiscriminator, Pair};
pub(crate) use reconstruction::{latent_loss, reconstruction_loss};
