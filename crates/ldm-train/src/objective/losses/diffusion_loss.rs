//! The loss of a diffusion model, weighted by noise level.

use ldm_core::{Error, Result};
use ldm_pipelines::{LatentDiffusionConfig, LossType};
use ldm_schedulers::{NoiseSchedule, Parameterization};
use tch::{Device, Kind, Tensor};

use crate::objective::Loss;

/// The loss of a denoiser: per-sample errors, weighted by noise level. The weights are tables on the device, so that no
/// step synchronizes with the host. CompVis `ddpm.py:1014` `p_losses`.
#[derive(Debug)]
pub struct DiffusionLoss {
    loss_type: LossType,
    simple_weight: f64,
    elbo_weight: f64,
    /// Weights of the variational bound, `[T]`.
    elbo: Tensor,
    /// Min-SNR-γ weights, `[T]`.
    min_snr: Option<Tensor>,
    /// The log-variance of each noise level, `[T]`; `None` if all are 0.
    logvar: Option<Tensor>,
    learned: bool,
}

impl DiffusionLoss {
    /// The loss of `config`; with `min_snr_gamma`, L_simple is weighted by [`min_snr_weights`].
    ///
    /// # Errors
    /// [`Error::Invalid`] when γ is not positive, or a weight is negative, NaN or Inf.
    pub fn new(
        config: &LatentDiffusionConfig,
        schedule: &NoiseSchedule,
        min_snr_gamma: Option<f64>,
        device: Device,
    ) -> Result<Self> {
        for (key, value) in [
            ("original_elbo_weight", config.original_elbo_weight),
            ("l_simple_weight", config.l_simple_weight),
        ] {
            if !(value.is_finite() && value >= 0.) {
                return Err(Error::invalid(format!("model.params.{key}: expected at least 0, got {value}")));
            }
        }
        let table = |values: &[f32]| Tensor::from_slice(values).to_device(device);
        let min_snr = min_snr_gamma
            .map(|gamma| min_snr_weights(schedule, config.parameterization, gamma))
            .transpose()?;
        let logvar = (config.learn_logvar || config.logvar_init != 0.).then(|| {
            Tensor::full([schedule.timesteps() as i64], config.logvar_init, (Kind::Float, device))
                .set_requires_grad(config.learn_logvar)
        });
        Ok(Self {
            loss_type: config.loss_type,
            simple_weight: config.l_simple_weight,
            elbo_weight: config.original_elbo_weight,
            elbo: table(&schedule.lvlb_weights(config.parameterization)),
            min_snr: min_snr.map(|weights| table(&weights)),
            logvar,
            learned: config.learn_logvar,
        })
    }

    /// Computes each sample's error, in f32.
    ///
    /// # Shapes
    /// - `prediction`, `target`: `[B, C, h, w]`; returns `[B]`
    pub fn per_sample(&self, prediction: &Tensor, target: &Tensor) -> Tensor {
        let difference = prediction.to_kind(Kind::Float) - target;
        let difference = match self.loss_type {
            LossType::L1 => difference.abs(),
            LossType::L2 => difference.square(),
        };
        difference.mean_dim([1, 2, 3].as_slice(), false, Kind::Float)
    }

    /// Weights and averages per-sample errors; the parts have CompVis' names.
    ///
    /// # Shapes
    /// - `each`: `[B]`, of [`per_sample`](Self::per_sample); `t`: `[B]` i64, on the device
    pub fn reduce(&self, each: &Tensor, t: &Tensor) -> Loss {
        let at = |table: &Tensor| table.index_select(0, t); // [B]
        let plain = each.mean(Kind::Float);
        let vlb = (at(&self.elbo) * each).mean(Kind::Float);
        let mut parts = vec![("loss_simple", plain.detach())];
        let weighted = self.min_snr.as_ref().map(|weights| at(weights) * each);
        let gamma = match &self.logvar {
            Some(logvar) => {
                let logvar_t = at(logvar);
                (weighted.as_ref().unwrap_or(each) / logvar_t.exp() + logvar_t).mean(Kind::Float)
            }
            None => weighted.map_or(plain, |weighted| weighted.mean(Kind::Float)),
        };
        if let Some(logvar) = self.learned_logvar() {
            parts.push(("loss_gamma", gamma.detach()));
            parts.push(("logvar", logvar.detach().mean(Kind::Float)));
        }
        let mut total = gamma * self.simple_weight;
        if self.elbo_weight != 0. {
            total += &vlb * self.elbo_weight;
        }
        parts.extend([("loss_vlb", vlb.detach()), ("loss", total.detach())]);
        Loss { total, parts }
    }

    /// [`reduce`](Self::reduce) with prior preservation: samples of instance images alternate with samples of class images,
    /// whose loss is added with `weight`. `loss` is the sum, `loss_prior` the loss of class images; the other parts are those
    /// of instance images.
    ///
    /// Ruiz et al. 2023, eq. 3. diffusers `train_dreambooth.py`, `--with_prior_preservation`.
    ///
    /// # Shapes
    /// - `each`, `t`: `[2B]`, as of [`reduce`](Self::reduce)
    pub fn reduce_with_prior(&self, each: &Tensor, t: &Tensor, weight: f64) -> Loss {
        let [instances, class_images] = [0, 1].map(|first| {
            let half = |x: &Tensor| x.slice(0, first, None, 2); // [B]
            self.reduce(&half(each), &half(t))
        });
        let total = instances.total + &class_images.total * weight;
        let mut parts = instances.parts;
        parts.retain(|(name, _)| *name != "loss");
        parts.extend([("loss_prior", class_images.total.detach()), ("loss", total.detach())]);
        Loss { total, parts }
    }

    /// The learned log-variances, `[T]` f32, with `learn_logvar`.
    pub fn learned_logvar(&self) -> Option<&Tensor> {
        self.logvar.as_ref().filter(|_| self.learned)
    }
}

/// Min-SNR-γ weights of L_simple: `min(SNR, γ)` for errors of x_0, and so `min(SNR, γ) / SNR` of ε and
/// `min(SNR, γ) / (SNR + 1)` of v.
///
/// Hang et al. 2023, §3.4, with SNR = ᾱ / (1 − ᾱ).
///
/// # Errors
/// [`Error::Invalid`] when γ is not positive.
pub fn min_snr_weights(
    schedule: &NoiseSchedule,
    parameterization: Parameterization,
    gamma: f64,
) -> Result<Vec<f32>> {
    if !(gamma.is_finite() && gamma > 0.) {
        return Err(Error::invalid(format!("min_snr_gamma: expected a positive number, got {gamma}")));
    }
    let weight = |t| {
        let level = schedule.level(t);
        let snr = (level.alpha / level.sigma).powi(2);
        match parameterization {
            // Not divided by the SNR, which is 0 at pure noise.
            Parameterization::Eps => (gamma / snr).min(1.),
            Parameterization::X0 => snr.min(gamma),
            Parameterization::V => snr.min(gamma) / (snr + 1.),
        }
    };
    Ok((0..schedule.timesteps()).map(|t| weight(t) as f32).collect())
}
