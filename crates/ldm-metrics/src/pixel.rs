//! Pixelwise metrics.

use tch::{Kind, Tensor};

/// Peak signal-to-noise ratio of each image in dB, on 8-bit pixels as saved: both images are clamped and rounded to
/// 0…255, and 10·log₁₀(255² / mean squared error) is computed over all pixels and channels.
///
/// Average over images afterward; the ratio of an average error differs. Equal images give Inf.
///
/// # Shapes
/// - `a`, `b`: `[B, C, H, W]` in `[-1, 1]`
/// - returns `[B]` f64, on their device
///
/// # Panics
/// If the shapes differ.
///
/// As `skimage.metrics.peak_signal_noise_ratio` on each pair of 8-bit images.
pub fn psnr(a: &Tensor, b: &Tensor) -> Tensor {
    assert_eq!(a.size(), b.size(), "expected images of equal shape");
    let error = (eight_bit(a) - eight_bit(b)).square().flatten(1, -1); // [B, C·H·W]
    let error = error.mean_dim(1, false, Kind::Double); //                [B]
    (error.reciprocal() * 255_f64.powi(2)).log10() * 10.
}

/// [`psnr`] of a part of each image: the mean of the squared errors is taken over the pixels of `mask`. Inf where it has none.
///
/// # Shapes
/// - `a`, `b`: `[B, C, H, W]` in `[-1, 1]`; `mask`: `[B, 1, H, W]`, 0 or 1
/// - returns `[B]` f64, on their device
///
/// # Panics
/// If the shapes differ.
pub fn psnr_within(a: &Tensor, b: &Tensor, mask: &Tensor) -> Tensor {
    assert_eq!(a.size(), b.size(), "expected images of equal shape");
    let mask = mask.to_kind(Kind::Double).expand_as(a);
    let sum = |x: &Tensor| x.flatten(1, -1).sum_dim_intlist([1_i64].as_slice(), false, Kind::Double); // [B]
    let error = sum(&((eight_bit(a) - eight_bit(b)).square() * &mask)) / sum(&mask).clamp_min(1.);
    (error.reciprocal() * 255_f64.powi(2)).log10() * 10.
}

/// Percentage of the pixels of each label map whose label, the highest channel, is that of the other.
///
/// # Shapes
/// - `a`, `b`: `[B, K, H, W]` scores or one-hot labels
/// - returns `[B]` f64, on their device
///
/// # Panics
/// If the shapes differ.
pub fn label_accuracy(a: &Tensor, b: &Tensor) -> Tensor {
    assert_eq!(a.size(), b.size(), "expected maps of equal shape");
    let same = a.argmax(1, false).eq_tensor(&b.argmax(1, false)).to_kind(Kind::Double);
    same.mean_dim([1, 2].as_slice(), false, Kind::Double) * 100.
}

/// Gray levels 0…255 in f64, rounded as by `ldm_core::image`.
pub(crate) fn eight_bit(image: &Tensor) -> Tensor {
    // Scaled in f32 for any dtype, as on saving: halves round the same way.
    let scaled = (image.to_kind(Kind::Float) + 1.) * 127.5;
    scaled.clamp(0., 255.).round().to_kind(Kind::Double)
}
