//! Structural similarity (SSIM, MS-SSIM).

use ldm_core::{Error, Result};
use tch::{Kind, Tensor};

/// Side of the Gaussian window, in pixels.
const SIDE: i64 = 11;
/// Deviation of the Gaussian window, in pixels.
const SIGMA: f64 = 1.5;
/// Constants of mean and contrast (Wang et al. 2004, §III-C), for values in `[0, 1]`.
const C: [f64; 2] = [0.01 * 0.01, 0.03 * 0.03];
/// Weights of the five scales, finest first (Wang et al. 2003, §3.2).
const WEIGHTS: [f64; 5] = [0.0448, 0.2856, 0.3001, 0.2363, 0.1333];

/// Structural similarity of each image (Wang et al. 2004, eq. 13), with a Gaussian window of 11 pixels and deviation 1.5
/// without padding, averaged over positions and channels, on 8-bit pixels as saved. Equal images give 1.
///
/// # Shapes
/// - `a`, `b`: `[B, C, H, W]` in `[-1, 1]`; returns `[B]` f64
///
/// # Errors
/// [`Error::Invalid`] if a side is smaller than the window; [`Error::Shape`] if shapes differ.
///
/// As `skimage.metrics.structural_similarity` with `gaussian_weights`, `use_sample_covariance=False` and a crop of half a
/// window.
pub fn ssim(a: &Tensor, b: &Tensor) -> Result<Tensor> {
    let [a, b] = pair(a, b, SIDE)?;
    let [_, full] = terms(&a, &b);
    Ok(full)
}

/// Multi-scale structural similarity (Wang et al. 2003, eq. 7): contrast and structure at five scales, each half the
/// previous one, and luminance at the last.
///
/// # Shapes
/// - `a`, `b`: `[B, C, H, W]` in `[-1, 1]`, sides of at least 161 pixels; returns `[B]` f64
///
/// # Errors
/// As [`ssim`], for the smallest scale.
pub fn ms_ssim(a: &Tensor, b: &Tensor) -> Result<Tensor> {
    // One window must fit after four halvings.
    let [mut a, mut b] = pair(a, b, (SIDE - 1) * 16 + 1)?;
    let mut product = Tensor::ones([a.size()[0]], (Kind::Double, a.device()));
    for (scale, weight) in WEIGHTS.into_iter().enumerate() {
        let last = scale + 1 == WEIGHTS.len();
        let term = &terms(&a, &b)[usize::from(last)];
        // A fractional power of a negative number is NaN.
        product *= term.clamp_min(0.).pow_tensor_scalar(weight);
        if !last {
            [a, b] = [a, b].map(|x| {
                let odd = [x.size()[2] % 2, x.size()[3] % 2];
                x.avg_pool2d([2, 2], [2, 2], odd, false, true, None::<i64>)
            });
        }
    }
    Ok(product)
}

/// Checks both images, and returns them in `[0, 1]` in steps of 8 bits, f64.
fn pair(a: &Tensor, b: &Tensor, least: i64) -> Result<[Tensor; 2]> {
    let size = a.size();
    if size.len() != 4 || size != b.size() {
        let expected = format!("[B, C, H, W], equal to the first image's {size:?}");
        return Err(Error::Shape { what: "the second image".into(), expected, got: b.size() });
    }
    if size[2] < least || size[3] < least {
        return Err(Error::invalid(format!(
            "image: expected sides of at least {least} pixels for structural similarity, got {}x{}",
            size[2], size[3]
        )));
    }
    Ok([a, b].map(|x| crate::pixel::eight_bit(x) / 255.))
}

/// Contrast and structure, and the product with luminance: `[B]` each.
fn terms(a: &Tensor, b: &Tensor) -> [Tensor; 2] {
    let channels = a.size()[1];
    let at = Tensor::arange(SIDE, (Kind::Double, a.device())) - (SIDE / 2) as f64;
    let line = (at.square() / (-2. * SIGMA * SIGMA)).exp();
    let line = &line / line.sum(Kind::Double);
    let blurred = |x: &Tensor| {
        let down = line.view([1, 1, SIDE, 1]).expand([channels, 1, SIDE, 1], false);
        let across = line.view([1, 1, 1, SIDE]).expand([channels, 1, 1, SIDE], false);
        x.conv2d(&down, None::<Tensor>, [1, 1], [0, 0], [1, 1], channels).conv2d(
            &across,
            None::<Tensor>,
            [1, 1],
            [0, 0],
            [1, 1],
            channels,
        )
    };
    let (mean_a, mean_b) = (blurred(a), blurred(b));
    let variance_a = blurred(&a.square()) - mean_a.square();
    let variance_b = blurred(&b.square()) - mean_b.square();
    let covariance = blurred(&(a * b)) - &mean_a * &mean_b;
    let contrast = (covariance * 2. + C[1]) / (variance_a + variance_b + C[1]);
    let luminance = (&mean_a * &mean_b * 2. + C[0]) / (mean_a.square() + mean_b.square() + C[0]);
    let mean = |x: &Tensor| x.flatten(1, -1).mean_dim([1_i64].as_slice(), false, Kind::Double);
    [mean(&contrast), mean(&(&contrast * luminance))]
}
