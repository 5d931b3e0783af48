//! A network with its conditioning is a denoiser; guidance is a denoiser of two.

use ldm_core::Conditioning;
use ldm_schedulers::{Denoised, Denoiser, NoiseLevel, Parameterization};
use ldm_unet::{Prepared, UNet};
use tch::{Kind, Tensor};

/// The network with one conditioning, whose keys and values are computed once.
#[derive(Debug)]
pub struct Unguided<'a> {
    unet: &'a UNet,
    parameterization: Parameterization,
    cond: Prepared,
}

impl<'a> Unguided<'a> {
    /// The network told `cond`.
    pub fn new(unet: &'a UNet, parameterization: Parameterization, cond: &Conditioning) -> Self {
        Self { unet, parameterization, cond: unet.prepare(cond) }
    }
}

impl Denoiser for Unguided<'_> {
    fn denoise(&self, x: &Tensor, at: NoiseLevel) -> Denoised {
        self.parameterization.read(predict(self.unet, x, at, &self.cond), x, at)
    }
}

/// Classifier-free guidance (Ho & Salimans 2022, eq. 6): both halves in one forward, then
/// `uncond + scale · (cond − uncond)`.
///
/// The scale acts on the prediction, as in CompVis `ddim.py:186`; for eps, x0 and v alike that equals acting on eps,
/// since they are affine in each other at a given x and level.
#[derive(Debug)]
pub struct Guided<'a> {
    unet: &'a UNet,
    parameterization: Parameterization,
    /// `[uncond; cond]`.
    both: Prepared,
    scale: f64,
}

impl<'a> Guided<'a> {
    /// Guides `cond` away from `uncond` by `scale`.
    pub fn new(
        unet: &'a UNet,
        parameterization: Parameterization,
        uncond: &Conditioning,
        cond: &Conditioning,
        scale: f64,
    ) -> Self {
        Self { unet, parameterization, both: unet.prepare(&uncond.stack(cond)), scale }
    }
}

impl Denoiser for Guided<'_> {
    fn denoise(&self, x: &Tensor, at: NoiseLevel) -> Denoised {
        let halves = predict(self.unet, &Tensor::cat(&[x, x], 0), at, &self.both).chunk(2, 0);
        let guided = halves[0].lerp(&halves[1], self.scale);
        self.parameterization.read(guided, x, at)
    }
}

/// The network's answer in f32, whatever its own dtype.
fn predict(unet: &UNet, x: &Tensor, at: NoiseLevel, cond: &Prepared) -> Tensor {
    let t = Tensor::full([x.size()[0]], at.t, (Kind::Float, x.device()));
    unet.forward_prepared(x, &t, cond, false).to_kind(Kind::Float)
}
