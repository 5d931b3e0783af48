//! Classifier guidance.

use ldm_core::{Error, Prompt, Result};
use ldm_schedulers::{Denoised, Denoiser, NoiseLevel};
use tch::{Device, Kind, Tensor};

use crate::{Classifier, LatentDiffusion};

/// log p(y | x_t) of each sample, `[B]`, differentiable with respect to x_t, `[B, C, h, w]`.
pub type LogProbability<'a> = dyn Fn(&Tensor, NoiseLevel) -> Tensor + 'a;

/// Classifier guidance (Dhariwal & Nichol 2021, algorithm 2): ε − s·σ·∇ log p(y | x_t), and with it
/// x_0 + s·σ²/α·∇ log p(y | x_t), so that x_t stays α·x_0 + σ·ε. Acting on ε and x_0 it serves networks of ε, x_0 and v
/// alike, guided without a classifier or not.
///
/// The score ∇ log p(x_t) is −ε/σ, so a term added to the score is subtracted from ε: the minus is ADM's. The latent
/// diffusion paper prints a plus in the same place, which would guide away from the class. In pure noise, where α is 0,
/// the denoiser's prediction is unchanged.
///
/// CompVis has an unused hook for it (`ddim.py:181` `score_corrector`).
///
/// # Panics
/// In [`Denoiser::denoise`], when the result of `log_probability` does not depend on x_t differentiably.
pub struct ClassifierGuidance<'a> {
    /// The denoiser it guides.
    pub denoiser: Box<dyn Denoiser + 'a>,
    /// The classifier.
    pub log_probability: Box<LogProbability<'a>>,
    /// The scale s; 0 is no guidance, and 1 samples p(x | y) where both models are exact.
    pub scale: f64,
}

impl ClassifierGuidance<'_> {
    /// ∇ log p(y | x_t) with respect to x_t, also under `no_grad`; parameters get no gradient.
    fn gradient(&self, x: &Tensor, at: NoiseLevel) -> Tensor {
        tch::with_grad(|| {
            let x = x.detach().set_requires_grad(true);
            let sum = (self.log_probability)(&x, at).sum(Kind::Float);
            assert!(sum.requires_grad(), "log p(y | x_t) must be differentiable with respect to x_t");
            Tensor::run_backward(&[sum], &[x], false, false).remove(0)
        })
    }
}

impl Denoiser for ClassifierGuidance<'_> {
    fn denoise(&self, x: &Tensor, at: NoiseLevel) -> Denoised {
        let Denoised { x0, eps } = self.denoiser.denoise(x, at);
        let NoiseLevel { alpha, sigma, .. } = at;
        if self.scale == 0. || alpha == 0. {
            return Denoised { x0, eps };
        }
        let step = self.gradient(x, at) * (self.scale * sigma);
        Denoised { x0: x0 + &step * (sigma / alpha), eps: eps - step }
    }
}

/// A classifier with its scale, checked against the model it guides.
#[derive(Debug)]
pub struct GuidingClassifier {
    classifier: Classifier,
    scale: f64,
}

impl GuidingClassifier {
    /// A classifier that guides samples of `model` to the class of their prompt, also where the model itself is not
    /// conditioned on a class; 10 is the paper's `scale` for LDM-8-G.
    ///
    /// # Errors
    /// As [`Classifier::check`]; [`Error::Invalid`] for a scale that is NaN or infinite.
    pub fn new(classifier: Classifier, scale: f64, model: &LatentDiffusion) -> Result<Self> {
        if !scale.is_finite() {
            return Err(Error::invalid(format!("classifier scale: expected a finite number, got {scale}")));
        }
        classifier.check(model)?;
        Ok(Self { classifier, scale })
    }

    /// The classifier.
    pub fn classifier(&self) -> &Classifier {
        &self.classifier
    }

    /// The scale.
    pub fn scale(&self) -> f64 {
        self.scale
    }

    /// The prompt's classes, `[B]`, checked for latents of `[B, C, h, w]`.
    pub(crate) fn labels(&self, prompt: &Prompt, size: [i64; 4], device: Device) -> Result<Tensor> {
        let [count, _, height, width] = size;
        self.classifier.check_size([height, width])?;
        let class = prompt.class.as_ref().ok_or_else(|| {
            Error::invalid("class: expected one in the prompt for the classifier to guide to, got none")
        })?;
        if class.size() != [count] {
            let expected = format!("[{count}], one for each seed");
            return Err(Error::Shape { what: "class".into(), expected, got: class.size() });
        }
        let known = self.classifier.num_classes();
        let [low, high] = [class.min(), class.max()].map(|bound| bound.int64_value(&[]));
        match if low < 0 { low } else { high } {
            wrong if (0..known).contains(&wrong) => Ok(class.to_kind(Kind::Int64).to_device(device)),
            wrong => Err(Error::invalid(format!(
                "class: expected 0 to {}, the classes of the classifier, got {wrong}",
                known - 1
            ))),
        }
    }

    /// `denoiser` guided to `labels`.
    pub(crate) fn guide<'a>(
        &'a self,
        denoiser: Box<dyn Denoiser + 'a>,
        labels: Tensor,
    ) -> ClassifierGuidance<'a> {
        let log_probability =
            Box::new(move |x: &Tensor, at: NoiseLevel| self.classifier.log_probability(x, at.t, &labels));
        ClassifierGuidance { denoiser, log_probability, scale: self.scale }
    }
}
