//! Timing of latent diffusion models.
