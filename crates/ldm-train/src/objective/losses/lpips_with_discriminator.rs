//! The published first-stage losses: pixels, LPIPS and a discriminator.

use ldm_core::Result;
use ldm_libtorch::autocast;
use ldm_metrics::{Lpips, Trunk};
use tch::nn::Path;
use tch::{Kind, Tensor};

use super::adversarial::{
    adaptive_weight, discriminator_loss, gradient, gradient_at, gradient_of_mean, gradient_penalty, lecam,
};
use super::adversarial_config::AdversarialLoss;
use super::discriminator::Discriminator;
use crate::objective::Loss;

/// Images, their reconstructions, and the condition of the discriminator.
pub(crate) struct Pair<'a> {
    /// `[B, C, H, W]`
    pub(crate) image: &'a Tensor,
    /// The same shape, f32, attached to the graph.
    pub(crate) reconstruction: &'a Tensor,
    /// `[B, K, H, W]` with `disc_conditional`.
    pub(crate) condition: Option<&'a Tensor>,
}

impl Pair<'_> {
    /// Images as the discriminator sees them, `[B, C + K, H, W]`. CompVis `contperceptual.py:68`.
    fn with_condition(&self, images: &Tensor) -> Tensor {
        match self.condition {
            None => images.shallow_clone(),
            Some(condition) => Tensor::cat(&[images, condition], 1),
        }
    }
}

/// The published losses of first stages: pixels and LPIPS, an adversarial term with adaptive weight, and the latent's
/// regularization.
///
/// KL first stages sum over an image and divide by a learnable variance; VQ first stages use means. Both passes of the
/// discriminator run at every step, also before `disc_start`, where their weight is 0, so that the statistics of its
/// normalization, the step count of its optimizer and the log match CompVis.
///
/// CompVis `contperceptual.py:7` `LPIPSWithDiscriminator`; taming-transformers `vqperceptual.py:34`
/// `VQLPIPSWithDiscriminator`. Esser et al. 2021, eqs. 5–7; Rombach et al. 2022, appendix G.
#[derive(Debug)]
pub(crate) struct LpipsWithDiscriminator {
    config: AdversarialLoss,
    lpips: Option<Lpips>,
    discriminator: Discriminator,
    /// The log-variance of the reconstruction, a scalar (KL).
    logvar: Option<Tensor>,
    /// EMA of the logits for real and for reconstructed images, scalars (LeCam).
    logits: Option<[Tensor; 2]>,
}

impl LpipsWithDiscriminator {
    /// Creates the loss of a KL first stage if `kl`, otherwise of a VQ one, below `vs`, which is `loss` in CompVis
    /// checkpoints. `lpips` has no variables in `vs`.
    pub(crate) fn new(vs: &Path, config: AdversarialLoss, kl: bool, lpips: Option<Lpips>) -> Self {
        let logvar = kl.then(|| {
            let start = Tensor::full([], config.logvar_init.unwrap_or(0.), (Kind::Float, vs.device()));
            vs.add("logvar", start, config.learn_logvar.unwrap_or(false))
        });
        let logits = (config.lecam_weight > 0.)
            .then(|| ["real", "fake"].map(|kind| (vs / "lecam").zeros_no_train(kind, &[])));
        let discriminator = Discriminator::new(&(vs / "discriminator"), &config.discriminator());
        Self { config, lpips, discriminator, logvar, logits }
    }

    /// A note for the user if LPIPS has random weights.
    pub(crate) fn note(&self) -> Option<String> {
        (self.lpips.as_ref()?.trunk() == Trunk::Random).then(|| {
            "the perceptual loss uses a fixed random VGG16, as the published weights are not installed; try \
             `ldm weights get lpips-vgg16`"
                .to_owned()
        })
    }

    /// Checks that images are large enough for the discriminator and LPIPS.
    pub(crate) fn check_size(&self, size: [i64; 2]) -> Result<()> {
        let smallest = self.config.discriminator().smallest_side();
        if size.iter().any(|side| *side < smallest) {
            let [height, width] = size;
            return Err(ldm_core::Error::invalid(format!(
                "expected images of at least {smallest}x{smallest} for `disc_num_layers` {}, got {height}x{width}",
                self.config.disc_num_layers
            )));
        }
        self.lpips.as_ref().map_or(Ok(()), |_| Lpips::check_size(size))
    }

    /// Channels of the discriminator's condition, if it has one, for images of `channels`.
    pub(crate) fn condition_channels(&self, channels: i64) -> Option<i64> {
        self.config.condition_channels(channels)
    }

    /// True if LPIPS has a weight.
    pub(crate) fn has_lpips(&self) -> bool {
        self.lpips.is_some()
    }

    /// Must be called after weights were loaded.
    pub(crate) fn loaded(&self) {
        self.discriminator.loaded();
    }

    /// The mean reconstruction loss per element, and LPIPS if it has a weight; scalars.
    pub(crate) fn compare(&self, image: &Tensor, reconstruction: &Tensor) -> (Tensor, Option<Tensor>) {
        let pixels = self.config.pixel_loss.of(&(image - reconstruction)).mean(Kind::Float);
        let perceptual =
            self.lpips.as_ref().map(|lpips| lpips.distance(image, reconstruction).mean(Kind::Float));
        let both = match &perceptual {
            Some(perceptual) => pixels + perceptual * self.config.perceptual_weight,
            None => pixels,
        };
        (both, perceptual)
    }

    /// −log p(x | z) for the mean reconstruction loss `rec`: a Laplace distribution of learnable scale, summed over the
    /// `elements` of an image (KL); `rec` unchanged (VQ).
    fn nll(&self, rec: &Tensor, elements: f64) -> Tensor {
        match &self.logvar {
            Some(logvar) => (rec / logvar.exp() + logvar) * elements,
            None => rec.shallow_clone(),
        }
    }

    /// The autoencoder's loss. `latent` is the KL term, summed over an image, or the codebook loss; the gradients of
    /// `last_layer` determine the adaptive weight.
    ///
    /// CompVis runs the backward pass of LPIPS and of the discriminator twice, once to `last_layer` and once to all
    /// parameters. Here each runs once, to the reconstruction; the rest is linear in these two gradients, so the
    /// gradients of the parameters are the same.
    pub(crate) fn generator_loss(
        &self,
        step: u64,
        pair: &Pair,
        latent: &Tensor,
        last_layer: &Tensor,
    ) -> Loss {
        let Pair { image, reconstruction, .. } = pair;
        let elements = (image.numel() as i64 / image.size()[0]) as f64;
        let detached = reconstruction.detach().set_requires_grad(true);
        let (rec, perceptual) = self.compare(image, &detached);
        let nll = self.nll(&rec, elements);
        let g_loss = -self.discriminator.forward(&pair.with_condition(&detached)).mean(Kind::Float);
        let factor = self.config.generator_factor(step);

        // Outside of autocast. LPIPS is f32 always; the discriminator and the last layer may be f16.
        let _f32 = autocast(image.device(), Kind::Float);
        let by_nll = gradient(&nll, &detached);
        // With disc_factor 0, the KL loss does not compute the adaptive weight; the VQ loss does.
        let adaptive = self.config.disc_factor > 0. || self.logvar.is_none();
        let (d_weight, by_image) = if adaptive {
            let by_g = gradient_of_mean(&g_loss, &detached);
            let at_last = |by: &Tensor| gradient_at(last_layer, reconstruction, by);
            let weight = adaptive_weight(&at_last(&by_nll), &at_last(&by_g)) * self.config.disc_weight;
            let by_image = if factor > 0. { by_nll + by_g * (&weight * factor) } else { by_nll };
            (weight, by_image)
        } else {
            (nll.zeros_like(), by_nll)
        };

        let weight = match self.logvar {
            Some(_) => self.config.kl_weight,
            None => self.config.codebook_weight,
        };
        let rest = latent * weight.unwrap_or(1.);
        let adversarial = (&d_weight * factor) * g_loss.detach();
        let value = nll.detach() + adversarial;
        // `total` has the value `value + rest`, and the gradient of Σ reconstruction · by_image.
        let linear = (*reconstruction * by_image).sum(Kind::Float);
        let mut total = &linear - linear.detach() + value + rest;
        if let (Some(true), Some(_)) = (self.config.learn_logvar, &self.logvar) {
            let by_logvar = self.nll(&rec.detach(), elements);
            total += &by_logvar - by_logvar.detach();
        }

        let constant = |value: f64| Tensor::full([], value, (Kind::Float, image.device()));
        let mut parts = vec![
            ("total_loss", total.detach()),
            ("nll_loss", nll.detach()),
            ("rec_loss", rec.detach()),
            ("d_weight", d_weight),
            ("disc_factor", constant(factor)),
            ("g_loss", g_loss.detach()),
            (if self.logvar.is_some() { "kl_loss" } else { "quant_loss" }, latent.detach()),
        ];
        parts.extend(perceptual.map(|value| ("p_loss", value.detach())));
        parts.extend(self.logvar.iter().map(|logvar| ("logvar", logvar.detach())));
        Loss { total, parts }
    }

    /// The discriminator's loss, without a gradient to the autoencoder.
    pub(crate) fn discriminator_loss(&self, step: u64, pair: &Pair) -> Loss {
        let config = &self.config;
        let factor = config.discriminator_factor(step);
        let penalized = config.r1_weight > 0. && factor > 0.;
        let real = pair.image.detach().set_requires_grad(penalized);
        let logits_real = self.discriminator.forward(&pair.with_condition(&real));
        let logits_fake = self.discriminator.forward(&pair.with_condition(&pair.reconstruction.detach()));
        let mut total = discriminator_loss(config.disc_loss, &logits_real, &logits_fake);
        let mut parts = vec![
            ("logits_real", logits_real.detach().mean(Kind::Float)),
            ("logits_fake", logits_fake.detach().mean(Kind::Float)),
        ];
        if penalized {
            let penalty = gradient_penalty(&real, &logits_real);
            parts.push(("r1", penalty.detach()));
            total += penalty * (config.r1_weight / 2.);
        }
        if let (Some([mean_real, mean_fake]), true) = (&self.logits, factor > 0.) {
            for (mean, (_, now)) in [mean_real, mean_fake].into_iter().zip(&parts) {
                let _ = tch::no_grad(|| mean.shallow_clone().lerp_(now, 1. - config.lecam_decay));
            }
            let distance = lecam(&logits_real, &logits_fake, mean_real, mean_fake);
            parts.push(("lecam", distance.detach()));
            total += distance * config.lecam_weight;
        }
        let total = total * factor;
        parts.push(("disc_loss", total.detach()));
        Loss { total, parts }
    }
}
