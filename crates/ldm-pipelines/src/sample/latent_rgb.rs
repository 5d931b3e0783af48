//! Previews of latents without the decoder.

use ldm_core::noise::Seeded;
use ldm_core::{Error, NoiseSource, Result};
use tch::{Kind, Tensor};

use crate::LatentDiffusion;

/// The number of images for the fit.
const IMAGES: u64 = 8;
/// The side of their latents.
const SIDE: i64 = 16;

/// An affine map from latent channels to the mean color of their pixels: a cheap preview for first stages whose latents
/// resemble small images.
///
/// Fitted by least squares to synthetic color fields and their latents, so that it needs neither data nor a table for
/// each model.
#[derive(Debug)]
pub struct LatentRgb {
    /// `[C + 1, 3]`; the last row is the bias.
    map: Tensor,
}

impl LatentRgb {
    /// Fits the map to `model`.
    ///
    /// # Errors
    /// [`Error::Invalid`] for a first stage of label maps, or when the first stage encodes NaN or Inf, as some do in half
    /// precision.
    pub fn fit(model: &LatentDiffusion) -> Result<Self> {
        model.input().pixels()?;
        let factor = model.first_stage.factor();
        let device = model.vs().device();
        let options = (Kind::Float, device);
        let mut noise = Seeded::new(0..IMAGES);
        // Smooth color fields, and bright patches with sharp borders.
        let soft = noise.like(&Tensor::zeros([IMAGES as i64, 3, 4, 4], options));
        let shares = noise.like(&Tensor::zeros([IMAGES as i64, 1, 4, 4], options));
        let [soft, shares] =
            [soft, shares].map(|x| x.upsample_bicubic2d([SIDE * factor, SIDE * factor], false, None, None));
        let images = (&soft * 0.7 + shares.gt(0.5).to_kind(Kind::Float)).clamp(-1., 1.);
        tch::no_grad(|| {
            let encoded = images.split(1, 0).iter().map(|x| model.posterior(x).mode()).collect::<Vec<_>>();
            let latents = Tensor::cat(&encoded, 0).to_kind(Kind::Double) * model.scale_factor;
            let colors = images.avg_pool2d([factor; 2], [factor; 2], [0, 0], false, true, None);
            let rows = |x: &Tensor| x.to_kind(Kind::Double).permute([0, 2, 3, 1]).flatten(0, 2); // [n, C]
            let (x, y) = (with_one(&rows(&latents)), rows(&colors));
            // The ridge keeps the system solvable with a constant channel.
            let ridge = Tensor::eye(x.size()[1], (Kind::Double, device)) * 1e-6 * x.size()[0] as f64;
            let map = Tensor::linalg_solve(&(x.tr().matmul(&x) + ridge), &x.tr().matmul(&y), true);
            if map.isfinite().all().int64_value(&[]) == 0 {
                return Err(Error::invalid(format!(
                    "latents: expected finite values, got NaN or Inf from the first stage in {:?}; try f32",
                    model.kind()
                )));
            }
            Ok(Self { map: map.to_kind(Kind::Float) })
        })
    }

    /// Maps latents to images of one pixel per latent.
    ///
    /// # Shapes
    /// - `latents`: `[B, C, h, w]`, scaled as the sampler has them; returns `[B, 3, h, w]` f32, clamped to `[-1, 1]`
    pub fn images(&self, latents: &Tensor) -> Tensor {
        let x = latents.to_kind(Kind::Float).permute([0, 2, 3, 1]);
        with_one(&x).matmul(&self.map).permute([0, 3, 1, 2]).clamp(-1., 1.)
    }
}

/// `[…, C]` → `[…, C + 1]`
fn with_one(x: &Tensor) -> Tensor {
    x.constant_pad_nd([0, 1]) + Tensor::eye(x.size()[x.dim() - 1] + 1, (x.kind(), x.device())).get(-1)
}
