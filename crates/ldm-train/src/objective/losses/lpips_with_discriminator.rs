//! LPIPS and a discriminator beside pixels.

use ldm_core::Result;
use ldm_libtorch::{autocast, gradients};
use ldm_metrics::{Lpips, Trunk};
use tch::nn::Path;
use tch::{Kind, Tensor};

use super::adversarial::{balance, discriminator_loss, gradient_penalty, lecam};
use super::adversarial_config::AdversarialLoss;
use super::discriminator::Discriminator;
use crate::objective::Loss;

/// An image, and what the autoencoder made of it.
pub(crate) struct Pair<'a> {
    /// `[B, C, H, W]`
    pub(crate) image: &'a Tensor,
    /// The same, f32, with its way back to the parameters.
    pub(crate) reconstruction: &'a Tensor,
}

/// The published losses of first stages: pixels and LPIPS, a discriminator whose gradient is kept as long as theirs, and
/// the latent's own term.
///
/// KL first stages add up over an image and divide by a learnable variance, VQ ones take means. Both passes of the
/// discriminator run at every step, before `disc_start` too, where their weight is 0: so the statistics of its norms,
/// the count of its optimizer's steps and what is logged are the reference's.
///
/// CompVis `contperceptual.py:7` `LPIPSWithDiscriminator`; taming-transformers `vqperceptual.py:34`
/// `VQLPIPSWithDiscriminator`. Esser et al. 2021, eqs. 5–7; Rombach et al. 2022, appendix G.
#[derive(Debug)]
pub(crate) struct Adversarial {
    config: AdversarialLoss,
    lpips: Option<Lpips>,
    discriminator: Discriminator,
    /// The logarithm of the reconstruction's variance, a scalar (KL).
    logvar: Option<Tensor>,
    /// Running means of the answers to real and to made images, scalars (LeCam).
    answers: Option<[Tensor; 2]>,
}

impl Adversarial {
    /// Below `vs`, `loss` in a CompVis file; `lpips` is kept out of it. `kl` or else VQ.
    pub(crate) fn new(vs: &Path, config: AdversarialLoss, kl: bool, lpips: Option<Lpips>) -> Self {
        let logvar = kl.then(|| {
            let start = Tensor::full([], config.logvar_init.unwrap_or(0.), (Kind::Float, vs.device()));
            vs.add("logvar", start, config.learn_logvar.unwrap_or(false))
        });
        let answers = (config.lecam_weight > 0.)
            .then(|| ["real", "fake"].map(|kind| (vs / "lecam").zeros_no_train(kind, &[])));
        let discriminator = Discriminator::new(&(vs / "discriminator"), &config.discriminator());
        Self { config, lpips, discriminator, logvar, answers }
    }

    /// What a person who trains should be prompt_for.
    pub(crate) fn note(&self) -> Option<String> {
        (self.lpips.as_ref()?.trunk() == Trunk::Random).then(|| {
            "the perceptual loss looks through a fixed random VGG16: the published one is not installed, \
             `ldm weights get lpips-vgg16` gets it"
                .to_owned()
        })
    }

    /// Refuses images too small for the networks that judge them.
    pub(crate) fn check_size(&self, size: [i64; 2]) -> Result<()> {
        let least = self.config.discriminator().least_side();
        if size.iter().any(|side| *side < least) {
            let [height, width] = size;
            return Err(ldm_core::Error::invalid(format!(
                "`disc_num_layers`: a discriminator of {} needs images of at least {least}x{least}, got: {height}x{width}",
                self.config.disc_num_layers
            )));
        }
        self.lpips.as_ref().map_or(Ok(()), |_| Lpips::check_size(size))
    }

    /// Whether looks have a weight.
    pub(crate) fn has_lpips(&self) -> bool {
        self.lpips.is_some()
    }

    /// After weights were loaded.
    pub(crate) fn loaded(&self) {
        self.discriminator.loaded();
    }

    /// The reconstruction's loss of an average element, a scalar; and LPIPS, a scalar, where it has a weight.
    pub(crate) fn compare(&self, image: &Tensor, reconstruction: &Tensor) -> (Tensor, Option<Tensor>) {
        let pixels = self.config.pixel_loss.of(&(image - reconstruction)).mean(Kind::Float);
        let looks = self.lpips.as_ref().map(|lpips| lpips.distance(image, reconstruction).mean(Kind::Float));
        let both = match &looks {
            Some(looks) => pixels + looks * self.config.perceptual_weight,
            None => pixels,
        };
        (both, looks)
    }

    /// −log p(x | z) of the reconstruction's mean loss `rec`: a Laplace distribution of learnable scale, summed over the
    /// `elements` of an image (KL); `rec` as it is (VQ).
    fn nll(&self, rec: &Tensor, elements: f64) -> Tensor {
        match &self.logvar {
            Some(logvar) => (rec / logvar.exp() + logvar) * elements,
            None => rec.shallow_clone(),
        }
    }

    /// The autoencoder's loss. `latent` is the KL term, summed over an image, or the codebook's terms; `last_layer` the
    /// weight on which the gradients are balanced.
    ///
    /// The reference goes back through LPIPS and the discriminator twice, once to `last_layer` and once to all
    /// parameters. Here each is gone through once, down to the reconstruction; what follows from there is linear in
    /// these two gradients, so the parameters' gradients are the same.
    pub(crate) fn generator(&self, step: u64, pair: &Pair, latent: &Tensor, last_layer: &Tensor) -> Loss {
        let Pair { image, reconstruction } = pair;
        let elements = (image.numel() as i64 / image.size()[0]) as f64;
        let shown = reconstruction.detach().set_requires_grad(true);
        let (rec, looks) = self.compare(image, &shown);
        let nll = self.nll(&rec, elements);
        let g_loss = -self.discriminator.forward(&shown).mean(Kind::Float);
        let factor = self.config.generator_factor(step);

        // Backward formulas must not be rounded by autocast.
        let _exact = autocast(image.device(), Kind::Float);
        let back = |of: &Tensor, by: &Tensor| gradients(&[of], &[by]).expect("a part of the loss").remove(0);
        let by_nll = back(&nll, &shown);
        // The KL loss does not look for a balance without a discriminator, the VQ loss does.
        let balanced = self.config.disc_factor > 0. || self.logvar.is_none();
        let (d_weight, gradient) = if balanced {
            let by_g = back(&g_loss, &shown);
            let at_last = |by: &Tensor| back(&(*reconstruction * by).sum(Kind::Float), last_layer);
            let weight = balance(&at_last(&by_nll), &at_last(&by_g)) * self.config.disc_weight;
            let gradient = if factor > 0. { by_nll + by_g * (&weight * factor) } else { by_nll };
            (weight, gradient)
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
        // Its value is `value`, its gradient that of Σ reconstruction · gradient.
        let carried = (*reconstruction * gradient).sum(Kind::Float);
        let mut total = &carried - carried.detach() + value + rest;
        if let (Some(true), Some(_)) = (self.config.learn_logvar, &self.logvar) {
            let own = self.nll(&rec.detach(), elements);
            total += &own - own.detach();
        }

        let constant = |value: f64| Tensor::from(value as f32);
        let mut parts = vec![
            ("total_loss", total.detach()),
            ("nll_loss", nll.detach()),
            ("rec_loss", rec.detach()),
            ("d_weight", d_weight),
            ("disc_factor", constant(factor)),
            ("g_loss", g_loss.detach()),
            (if self.logvar.is_some() { "kl_loss" } else { "quant_loss" }, latent.detach()),
        ];
        parts.extend(looks.map(|looks| ("p_loss", looks.detach())));
        parts.extend(self.logvar.iter().map(|logvar| ("logvar", logvar.detach())));
        Loss { total, parts }
    }

    /// The discriminator's loss: nothing of it reaches the autoencoder.
    pub(crate) fn critic(&self, step: u64, pair: &Pair) -> Loss {
        let config = &self.config;
        let factor = config.critic_factor(step);
        let penalized = config.r1_weight > 0. && factor > 0.;
        let real = pair.image.detach().set_requires_grad(penalized);
        let to_real = self.discriminator.forward(&real);
        let to_fake = self.discriminator.forward(&pair.reconstruction.detach());
        let mut total = discriminator_loss(config.disc_loss, &to_real, &to_fake);
        let mut parts = vec![
            ("logits_real", to_real.detach().mean(Kind::Float)),
            ("logits_fake", to_fake.detach().mean(Kind::Float)),
        ];
        if penalized {
            let penalty = gradient_penalty(&real, &to_real);
            parts.push(("r1", penalty.detach()));
            total += penalty * (config.r1_weight / 2.);
        }
        if let (Some([mean_real, mean_fake]), true) = (&self.answers, factor > 0.) {
            for (mean, (_, now)) in [mean_real, mean_fake].into_iter().zip(&parts) {
                let _ = tch::no_grad(|| mean.shallow_clone().lerp_(now, 1. - config.lecam_decay));
            }
            let distance = lecam(&to_real, &to_fake, mean_real, mean_fake);
            parts.push(("lecam", distance.detach()));
            total += distance * config.lecam_weight;
        }
        let total = total * factor;
        parts.push(("disc_loss", total.detach()));
        Loss { total, parts }
    }
}
