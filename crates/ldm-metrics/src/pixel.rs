//! Metrics that compare two images pixel by pixel.

use tch::{Kind, Tensor};

/// Peak signal-to-noise ratio of each image in dB, on the 8-bit pixels that would be saved: both images are
/// clamped and rounded to 0…255, and 10·log₁₀(255² / mean squared error) is taken over all pixels and channels.
///
/// Average over images afterward; that differs from the ratio of an average error. Equal images give infinity.
///
/// # Shapes
/// - `a`, `b`: `[B, C, H, W]` in `[-1, 1]`
/// - returns `[B]` f64, on their device
///
/// # Panics
/// When the shapes differ.
///
/// As `skimage.metrics.peak_signal_noise_ratio` on each pair of 8-bit images.
pub fn psnr(a: &Tensor, b: &Tensor) -> Tensor {
    assert_eq!(a.size(), b.size(), "images of one shape");
    let error = (eight_bit(a) - eight_bit(b)).square().flatten(1, -1); // [B, C·H·W]
    let error = error.mean_dim(1, false, Kind::Double); //                [B]
    (error.reciprocal() * 255_f64.powi(2)).log10() * 10.
}

/// Gray levels 0…255, rounded as `ldm_core::image` rounds them, held as f64.
pub(crate) fn eight_bit(image: &Tensor) -> Tensor {
    // Scaled in f32 whatever the dtype, as where images are saved: a half step falls to the same side.
    let scaled = (image.to_kind(Kind::Float) + 1.) * 127.5;
    scaled.clamp(0., 255.).round().to_kind(Kind::Double)
}
