//! Config of the published first-stage losses.

use ldm_autoencoder::{EncoderConfig, VqConfig};
use serde::Deserialize;

use super::discriminator::DiscriminatorConfig;
use super::loss_config::PixelLoss;

/// CompVis' `LPIPSWithDiscriminator` and taming-transformers' `VQLPIPSWithDiscriminator` (with the keys of CompVis' own
/// copy of the latter): every field of their constructors, and our extensions `learn_logvar`, `disc_ramp`, `r1_weight`,
/// `lecam_weight` and `lecam_decay`, which are off by default.
///
/// `disc_ndf` and `pixel_loss`, which CompVis has only in the VQ loss, are keys of both. Other keys of one loss are
/// refused in the other.
///
/// CompVis `contperceptual.py:7`, `vqperceptual.py:49`; taming-transformers `vqperceptual.py:34`.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AdversarialLoss {
    /// The first step at which the adversarial terms have a weight.
    pub disc_start: u64,
    /// The initial log-variance of the reconstruction (KL; CompVis' default is 0).
    #[serde(default)]
    pub logvar_init: Option<f64>,
    /// Our extension (KL): trains `logvar`. In CompVis it is a parameter without an optimizer (`autoencoder.py:403`),
    /// so that it stays at `logvar_init`.
    #[serde(default)]
    pub learn_logvar: Option<bool>,
    /// Weight of the KL term, on sums over a sample (KL; CompVis' default is 1).
    #[serde(default)]
    pub kl_weight: Option<f64>,
    /// Weight of the codebook loss (VQ; CompVis' default is 1).
    #[serde(default)]
    pub codebook_weight: Option<f64>,
    /// Number of codebook entries, from which CompVis computes the perplexity (VQ); must equal that of the codebook.
    #[serde(default)]
    pub n_classes: Option<i64>,
    /// Unused, as in CompVis.
    #[serde(default = "one")]
    pub pixelloss_weight: f64,
    /// The error of a pixel.
    #[serde(default)]
    pub pixel_loss: PixelLoss,
    /// The perceptual distance.
    #[serde(default)]
    pub perceptual_loss: PerceptualLoss,
    /// Weight of LPIPS; with 0, no VGG16 is created.
    #[serde(default = "one")]
    pub perceptual_weight: f64,
    /// Number of strided convolutions of the discriminator.
    #[serde(default = "three")]
    pub disc_num_layers: i64,
    /// Channels that the discriminator sees: those of an image, and with `disc_conditional` those of its condition.
    #[serde(default = "three")]
    pub disc_in_channels: i64,
    /// Channels of the discriminator's first convolution.
    #[serde(default = "sixty_four")]
    pub disc_ndf: i64,
    /// ActNorm in the discriminator in place of batch normalization.
    #[serde(default)]
    pub use_actnorm: bool,
    /// Shows the discriminator the condition of each image along the channels (CompVis' `cond`, which its first stages
    /// never pass): the one-hot label map of the data, or without one planes of the one-hot class, of the
    /// `disc_in_channels` that exceed those of an image.
    #[serde(default)]
    pub disc_conditional: bool,
    /// The discriminator's loss.
    #[serde(default)]
    pub disc_loss: DiscriminatorLoss,
    /// Weight of all adversarial terms from `disc_start` on.
    #[serde(default = "one")]
    pub disc_factor: f64,
    /// Weight of the generator's adversarial term, relative to the adaptive weight.
    #[serde(default = "one")]
    pub disc_weight: f64,
    /// Our extension: steps from `disc_start` over which the weight of the generator's adversarial term grows from 0.
    /// The discriminator has its full weight from `disc_start`.
    #[serde(default)]
    pub disc_ramp: u64,
    /// Our extension: weight of the R₁ penalty (Mescheder et al. 2018).
    #[serde(default)]
    pub r1_weight: f64,
    /// Our extension: weight of the LeCam regularization (Tseng et al. 2021).
    #[serde(default)]
    pub lecam_weight: f64,
    /// Our extension: decay of the EMA of the discriminator's logits for LeCam.
    #[serde(default = "lecam_decay")]
    pub lecam_decay: f64,
}

/// The discriminator's loss.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum DiscriminatorLoss {
    /// Hinge loss: logits beyond ±1 have no gradient (Lim & Ye 2017).
    #[default]
    Hinge,
    /// Cross-entropy (Goodfellow et al. 2014).
    Vanilla,
}

/// The perceptual distance.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum PerceptualLoss {
    /// LPIPS with VGG16. CompVis names two more (`clips`, `dists`) but does not implement them.
    #[default]
    Lpips,
}

fn one() -> f64 {
    1.
}
fn three() -> i64 {
    3
}
fn sixty_four() -> i64 {
    64
}
fn lecam_decay() -> f64 {
    0.99
}

impl AdversarialLoss {
    /// Checks the values against the model; `vq` is given for the VQ loss.
    pub(super) fn check(&self, net: &EncoderConfig, vq: Option<&VqConfig>) -> Result<(), String> {
        let foreign = if vq.is_some() {
            [
                ("logvar_init", self.logvar_init.is_some()),
                ("learn_logvar", self.learn_logvar.is_some()),
                ("kl_weight", self.kl_weight.is_some()),
            ]
        } else {
            [
                ("codebook_weight", self.codebook_weight.is_some()),
                ("n_classes", self.n_classes.is_some()),
                ("", false),
            ]
        };
        if let Some((key, _)) = foreign.into_iter().find(|(_, given)| *given) {
            let (own, other) = if vq.is_some() { ("vq_lpips", "lpips") } else { ("lpips", "vq_lpips") };
            return Err(format!(
                "`{key}`: expected a key of {own}_with_discriminator, got one of {other}_with_discriminator"
            ));
        }
        if net.give_pre_end {
            return Err(
                "`give_pre_end`: expected false, as the adaptive weight needs the last layer, got true"
                    .into(),
            );
        }
        if let (Some(given), Some(vq)) = (self.n_classes, vq)
            && given != vq.n_embed
        {
            return Err(format!("`n_classes`: expected the codebook's {} entries, got {given}", vq.n_embed));
        }
        if self.disc_conditional && self.disc_in_channels <= net.out_ch {
            return Err(format!(
                "`disc_in_channels`: expected the images' {} channels and those of the condition, got {}",
                net.out_ch, self.disc_in_channels
            ));
        }
        if !self.disc_conditional && self.disc_in_channels != net.out_ch {
            let channels = net.out_ch;
            return Err(format!(
                "`disc_in_channels`: expected the images' {channels} channels, got {}",
                self.disc_in_channels
            ));
        }
        if self.perceptual_weight > 0. && net.out_ch != 3 {
            let got = self.perceptual_weight;
            return Err(format!("`perceptual_weight`: expected 0, as LPIPS requires 3 channels, got {got}"));
        }
        for (key, value) in [
            ("perceptual_weight", self.perceptual_weight),
            ("disc_factor", self.disc_factor),
            ("disc_weight", self.disc_weight),
            ("r1_weight", self.r1_weight),
            ("lecam_weight", self.lecam_weight),
            ("kl_weight", self.kl_weight.unwrap_or(1.)),
            ("codebook_weight", self.codebook_weight.unwrap_or(1.)),
        ] {
            if !(value >= 0. && value.is_finite()) {
                return Err(format!("`{key}`: expected at least 0, got {value}"));
            }
        }
        if !(0. ..1.).contains(&self.lecam_decay) {
            return Err(format!("`lecam_decay`: expected at least 0 and below 1, got {}", self.lecam_decay));
        }
        if !self.logvar_init.unwrap_or(0.).is_finite() {
            return Err("`logvar_init`: expected a finite number, got NaN or Inf".into());
        }
        self.discriminator().check()
    }

    /// Channels of the discriminator's condition, if it has one, for images of `channels`.
    pub(super) fn condition_channels(&self, channels: i64) -> Option<i64> {
        self.disc_conditional.then(|| self.disc_in_channels - channels)
    }

    pub(super) fn discriminator(&self) -> DiscriminatorConfig {
        DiscriminatorConfig {
            input_nc: self.disc_in_channels,
            ndf: self.disc_ndf,
            n_layers: self.disc_num_layers,
            use_actnorm: self.use_actnorm,
        }
    }

    /// The weight of the discriminator's loss at `step`. taming-transformers `vqperceptual.py:14` `adopt_weight`.
    pub(super) fn discriminator_factor(&self, step: u64) -> f64 {
        if step < self.disc_start { 0. } else { self.disc_factor }
    }

    /// The weight of the generator's adversarial term at `step`.
    pub(super) fn generator_factor(&self, step: u64) -> f64 {
        let since = step.saturating_sub(self.disc_start);
        let ramp = if since < self.disc_ramp { since as f64 / self.disc_ramp as f64 } else { 1. };
        self.discriminator_factor(step) * ramp
    }
}
