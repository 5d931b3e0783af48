//! A network with its conditioning as a denoiser, and classifier-free guidance.

use ldm_core::Conditioning;
use ldm_schedulers::{Denoised, Denoiser, NoiseLevel};
use tch::Tensor;

use super::network::NetworkConditioning;
use crate::Network;

/// A network with its conditioning, whose keys and values are computed once.
#[derive(Debug)]
pub struct Conditioned<'a> {
    network: Network<'a>,
    cond: NetworkConditioning,
}

impl<'a> Conditioned<'a> {
    /// The network conditioned on `cond`.
    pub fn new(network: Network<'a>, cond: &Conditioning) -> Self {
        let cond = network.precompute(cond);
        Self { network, cond }
    }
}

impl Denoiser for Conditioned<'_> {
    fn denoise(&self, x: &Tensor, at: NoiseLevel) -> Denoised {
        self.network.parameterization.to_denoised(self.network.predict(x, at, &self.cond), x, at)
    }
}

/// Settings of classifier-free guidance: scale, rescaling and interval.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Guidance {
    /// Guidance scale; 1 is none.
    pub scale: f64,
    /// Fraction, in `[0, 1]`, of the guided prediction rescaled to the standard deviation of the conditional one in
    /// each sample (Lin et al. 2023, arXiv:2305.08891, eq. 15 and 16): large scales otherwise overexpose.
    pub rescale: f64,
    /// Levels with σ/α above the first and up to the second are guided; elsewhere only the conditional prediction is
    /// computed (Kynkäänniemi et al. 2024, arXiv:2404.07724, eq. 5).
    pub interval: [f64; 2],
}

/// Guidance at every level, not rescaled.
impl From<f64> for Guidance {
    fn from(scale: f64) -> Self {
        Self { scale, rescale: 0., interval: [0., f64::INFINITY] }
    }
}

impl Guidance {
    /// `true` for levels in the interval.
    fn reaches(&self, at: NoiseLevel) -> bool {
        let [low, high] = self.interval;
        at.noise_to_signal() > low && at.noise_to_signal() <= high
    }
}

/// Classifier-free guidance (Ho & Salimans 2022, eq. 6): both halves in one forward, then
/// `uncond + scale · (cond − uncond)`.
///
/// The scale acts on the prediction, as in CompVis `ddim.py:186`; for eps, x0 and v alike that equals acting on eps,
/// since they are affine in each other at a given x and level. Rescaling depends on the parameterization; diffusers'
/// `rescale_noise_cfg` acts on it as here.
#[derive(Debug)]
pub struct ClassifierFreeGuidance<'a> {
    network: Network<'a>,
    /// `[uncond; cond]`.
    both: NetworkConditioning,
    /// For levels outside the interval, where there are some.
    cond: Option<NetworkConditioning>,
    guidance: Guidance,
}

impl<'a> ClassifierFreeGuidance<'a> {
    /// Guides `cond` away from `uncond`; a number is a guidance scale.
    pub fn new(
        network: Network<'a>,
        uncond: &Conditioning,
        cond: &Conditioning,
        guidance: impl Into<Guidance>,
    ) -> Self {
        let guidance = guidance.into();
        let everywhere = guidance.interval == Guidance::from(1.).interval;
        let both = network.precompute(&uncond.stack(cond));
        let cond = (!everywhere).then(|| network.precompute(cond));
        Self { network, both, cond, guidance }
    }
}

impl Denoiser for ClassifierFreeGuidance<'_> {
    fn denoise(&self, x: &Tensor, at: NoiseLevel) -> Denoised {
        let prediction = match &self.cond {
            Some(cond) if !self.guidance.reaches(at) => self.network.predict(x, at, cond),
            _ => {
                let halves = self.network.predict(&Tensor::cat(&[x, x], 0), at, &self.both).chunk(2, 0);
                let guided = halves[0].lerp(&halves[1], self.guidance.scale);
                if self.guidance.rescale == 0. {
                    guided
                } else {
                    let scaled = &guided * (deviation(&halves[1]) / deviation(&guided));
                    guided.lerp(&scaled, self.guidance.rescale)
                }
            }
        };
        self.network.parameterization.to_denoised(prediction, x, at)
    }
}

/// The standard deviation of each sample: `[B, 1, 1, 1]`.
fn deviation(prediction: &Tensor) -> Tensor {
    prediction.std_dim([1_i64, 2, 3].as_slice(), true, true)
}
