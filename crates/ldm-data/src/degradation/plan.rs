//! Degradation plans: random steps in random order, drawn before they are applied.

use image::RgbImage;

use super::jpeg::jpeg_round_trip;
use super::kernel::{Blur, Kernel};
use super::matlab_halving::halved;
use super::noise::{Noise, normals};
use crate::image::cv_resize::float_image;
use crate::image::float_image::FloatImage;
use crate::image::interpolation::OpenCv;
use crate::rng::Rng;

/// Strength of a degradation.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Strength {
    /// CompVis `bsrgan_light.py:534`: small blurs once, little noise, JPEG of quality 80 to 95.
    Light,
    /// CompVis `bsrgan.py:526`: blurs twice, noise up to a tenth, JPEG of quality 30 to 95.
    Full,
}

/// Every random choice for one image.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct DegradationPlan {
    /// Halving of the image before the steps, where there is one.
    pub(crate) before: Option<Halving>,
    /// Factor by which the steps reduce it.
    pub(crate) factor: usize,
    pub(crate) steps: Vec<DegradationStep>,
    /// Quality of the final JPEG.
    pub(crate) quality: u8,
}

/// Method of halving an image.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) enum Halving {
    OpenCv(OpenCv),
    Matlab,
}

/// One step of a degradation.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum DegradationStep {
    Blur(Blur),
    /// Resize by the factor 1 / `by`.
    Resize {
        by: f64,
        kind: OpenCv,
    },
    /// Blur by a Gaussian of 25 pixels, and every `factor`-th pixel of the result.
    Thin {
        sigma: f64,
    },
    /// Resize to the requested size.
    Fit(OpenCv),
    /// Noise of normals drawn from the seed.
    Noise {
        noise: Noise,
        seed: u64,
    },
    Jpeg {
        quality: u8,
    },
}

const KINDS: [OpenCv; 3] = [OpenCv::Linear, OpenCv::Cubic, OpenCv::Area];

impl Strength {
    fn quality(self, rng: &mut Rng) -> u8 {
        let least = if self == Self::Light { 80 } else { 30 };
        least + rng.below(u64::from(96 - least)) as u8
    }

    /// CompVis `bsrgan_light.py:326`, `bsrgan.py:325` `add_blur`; light kernels may be of even side.
    fn blur(self, factor: usize, rng: &mut Rng) -> Blur {
        let (widest, sigma) = (4. + factor as f64, 2. + 0.2 * factor as f64);
        let side = |least: u64, most: u64, rng: &mut Rng| (least + rng.below(most - least + 1)) as usize;
        let (widest, sigma) = if self == Self::Light { (widest / 4., sigma / 4.) } else { (widest, sigma) };
        if rng.unit() < 0.5 {
            let spread = [widest * rng.unit(), widest * rng.unit()];
            let side = side(2, 11, rng);
            let side = if self == Self::Light { side + 3 } else { 2 * side + 3 };
            return Blur::Long { side, angle: rng.between(0., std::f64::consts::PI), spread };
        }
        let side = if self == Self::Light { side(2, 4, rng) + 3 } else { 2 * side(2, 11, rng) + 3 };
        Blur::Round { side, sigma: sigma * rng.unit() }
    }
}

impl DegradationPlan {
    /// Draws a degradation that makes an image `factor` times smaller.
    pub(crate) fn draw(strength: Strength, factor: usize, rng: &mut Rng) -> Self {
        let light = strength == Strength::Light;
        let before = (factor == 4 && rng.unit() < 0.25)
            .then(|| if rng.unit() < 0.5 { Halving::OpenCv(*rng.pick(&KINDS)) } else { Halving::Matlab });
        let factor = if before.is_some() { 2 } else { factor };
        let mut order = [0, 1, 2, 3, 4, 5];
        for last in (1..order.len()).rev() {
            order.swap(last, rng.below(last as u64 + 1) as usize);
        }
        let place = |order: &[i32; 6], op| order.iter().position(|each| *each == op).expect("a permutation");
        let (shrink, fit) = (place(&order, 2), place(&order, 3));
        if shrink > fit {
            order.swap(shrink, fit);
        }
        let mut steps = Vec::new();
        for op in order {
            steps.extend(match op {
                0 => Some(DegradationStep::Blur(strength.blur(factor, rng))),
                1 => (!light).then(|| DegradationStep::Blur(strength.blur(factor, rng))),
                2 if rng.unit() < if light { 0.8 } else { 0.75 } => Some(DegradationStep::Resize {
                    by: rng.between(1., 2. * factor as f64),
                    kind: *rng.pick(&KINDS),
                }),
                2 => Some(DegradationStep::Thin { sigma: rng.between(0.1, 0.6 * factor as f64) }),
                3 => Some(DegradationStep::Fit(*rng.pick(&KINDS))),
                4 => {
                    let noise = Noise::draw(if light { [1, 2] } else { [2, 25] }, rng);
                    Some(DegradationStep::Noise { noise, seed: rng.bits() })
                }
                _ => (rng.unit() < 0.9).then(|| DegradationStep::Jpeg { quality: strength.quality(rng) }),
            });
        }
        Self { before, factor, steps, quality: strength.quality(rng) }
    }

    /// Applies the degradation to an image.
    pub(crate) fn apply(&self, image: &RgbImage) -> RgbImage {
        let mut floats = FloatImage::of(image);
        if let Some(halving) = self.before {
            floats = match halving {
                Halving::OpenCv(kind) => {
                    float_image(&floats, (floats.width / 2).max(1), (floats.height / 2).max(1), kind)
                }
                Halving::Matlab => halved(&floats),
            }
            .clamp();
        }
        let part = |length: usize, by: f64| ((1. / by * length as f64) as usize).max(1);
        let fitted = [floats.width, floats.height].map(|side| part(side, self.factor as f64));
        for step in &self.steps {
            floats = match step {
                DegradationStep::Blur(blur) => blur.kernel().convolve(&floats),
                DegradationStep::Resize { by, kind } => {
                    let (width, height) = (part(floats.width, *by), part(floats.height, *by));
                    float_image(&floats, width, height, *kind).clamp()
                }
                DegradationStep::Thin { sigma } => {
                    let kernel = Kernel::round(25, *sigma).shifted(self.factor);
                    every(self.factor, &kernel.convolve(&floats)).clamp()
                }
                DegradationStep::Fit(kind) => float_image(&floats, fitted[0], fitted[1], *kind).clamp(),
                DegradationStep::Noise { noise, seed } => noise.add(floats, normals(&mut Rng::of(&[*seed]))),
                DegradationStep::Jpeg { quality } => {
                    FloatImage::of(&jpeg_round_trip(&floats.to_image(), *quality))
                }
            };
        }
        jpeg_round_trip(&floats.to_image(), self.quality)
    }
}

/// Every `factor`-th pixel of every `factor`-th row, from the first.
fn every(factor: usize, image: &FloatImage) -> FloatImage {
    let (width, height) = (image.width.div_ceil(factor), image.height.div_ceil(factor));
    let row = |y: usize| {
        (0..width).flat_map(move |x| {
            let at = 3 * (y * factor * image.width + x * factor);
            [image.values[at], image.values[at + 1], image.values[at + 2]]
        })
    };
    FloatImage { width, height, values: (0..height).flat_map(row).collect() }
}
