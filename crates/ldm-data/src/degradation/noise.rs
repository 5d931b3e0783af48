//! Gaussian noise: independent in each color, equal in all, or correlated between them.

use std::f64::consts::TAU;

use crate::image::float_image::FloatImage;
use crate::rng::Rng;

type Matrix = [[f64; 3]; 3];

/// Noise, by its random parameters; for values in `[0, 1]`.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) enum Noise {
    /// Independent in each color of each pixel.
    Color { sigma: f64 },
    /// Equal in all colors of a pixel.
    Gray { sigma: f64 },
    /// Three normals per pixel, times this matrix.
    Correlated { factor: Matrix },
}

impl Noise {
    /// CompVis `bsrgan_light.py:373` `add_Gaussian_noise`.
    pub(crate) fn draw([least, most]: [u64; 2], rng: &mut Rng) -> Self {
        let sigma = (least + rng.below(most - least + 1)) as f64 / 255.;
        let kind = rng.unit();
        if kind > 0.6 {
            return Self::Color { sigma };
        }
        if kind < 0.4 {
            return Self::Gray { sigma };
        }
        let scales = [(); 3].map(|()| rng.unit());
        let random = [(); 3].map(|()| [(); 3].map(|()| rng.unit()));
        Self::Correlated { factor: factor(&covariance(most as f64 / 255., scales, &random)) }
    }

    /// Adds noise to an image and clamps it; `normal` yields standard normals, in the order of pixels and colors.
    pub(crate) fn add(self, mut image: FloatImage, mut normal: impl FnMut() -> f64) -> FloatImage {
        for pixel in image.values.chunks_exact_mut(3) {
            let noise = match self {
                Self::Color { sigma } => [(); 3].map(|()| normal() * sigma),
                Self::Gray { sigma } => [normal() * sigma; 3],
                Self::Correlated { factor } => {
                    let z = [(); 3].map(|()| normal());
                    [0, 1, 2].map(|k| (0..3).map(|row| z[row] * factor[row][k]).sum())
                }
            };
            pixel.iter_mut().zip(noise).for_each(|(value, noise)| *value += noise as f32);
        }
        image.clamp()
    }
}

/// Standard normals from uniform numbers (Box & Muller 1958).
pub(crate) fn normals(rng: &mut Rng) -> impl FnMut() -> f64 {
    let mut spare = None;
    move || {
        spare.take().unwrap_or_else(|| {
            let radius = (-2. * (1. - rng.unit()).ln()).sqrt();
            let (sin, cos) = (TAU * rng.unit()).sin_cos();
            spare = Some(radius * sin);
            radius * cos
        })
    }
}

/// `|L^2 U^T D U|`, each entry's absolute value: `U` is an orthonormal basis of `random`, `D` has `scales`.
pub(crate) fn covariance(level: f64, scales: [f64; 3], random: &Matrix) -> Matrix {
    // The left singular vectors of a matrix are the eigenvectors of it times its transpose; signs do not matter below.
    let square = [0, 1, 2].map(|i| [0, 1, 2].map(|j| (0..3).map(|k| random[i][k] * random[j][k]).sum()));
    let (values, vectors) = eigen(square);
    let mut order = [0, 1, 2];
    order.sort_by(|&a, &b| values[b].total_cmp(&values[a]));
    // `vectors[k]` is the k-th eigenvector: `U[i][k]` is `basis[k][i]`.
    let basis = order.map(|k| vectors[k]);
    [0, 1, 2].map(|i| {
        [0, 1, 2].map(|j| {
            let sum: f64 = (0..3).map(|k| basis[i][k] * scales[k] * basis[j][k]).sum();
            (level * level * sum).abs()
        })
    })
}

/// Matrix that maps standard normals to normals of a covariance. After the absolute values above it may have a
/// negative eigenvalue; numpy's `multivariate_normal` uses singular values, so that its absolute value counts.
pub(crate) fn factor(covariance: &Matrix) -> Matrix {
    let (values, vectors) = eigen(*covariance);
    [0, 1, 2].map(|k| vectors[k].map(|entry| values[k].abs().sqrt() * entry))
}

/// Eigenvalues and eigenvectors, a row each, of a symmetric matrix, by Jacobi's rotations.
fn eigen(mut a: Matrix) -> ([f64; 3], Matrix) {
    let mut vectors: Matrix = [[1., 0., 0.], [0., 1., 0.], [0., 0., 1.]];
    // Three rotations per round; convergence is quadratic, and eight rounds reach machine precision.
    for (p, q) in [(0, 1), (0, 2), (1, 2)].into_iter().cycle().take(3 * 8) {
        if a[p][q] == 0. {
            continue;
        }
        let ratio = (a[q][q] - a[p][p]) / (2. * a[p][q]);
        let tangent = ratio.signum() / (ratio.abs() + ratio.hypot(1.));
        let cos = 1. / tangent.hypot(1.);
        let sin = tangent * cos;
        for row in &mut a {
            (row[p], row[q]) = (cos * row[p] - sin * row[q], sin * row[p] + cos * row[q]);
        }
        for k in 0..3 {
            (a[p][k], a[q][k]) = (cos * a[p][k] - sin * a[q][k], sin * a[p][k] + cos * a[q][k]);
            let [x, y] = [vectors[p][k], vectors[q][k]];
            (vectors[p][k], vectors[q][k]) = (cos * x - sin * y, sin * x + cos * y);
        }
    }
    ([a[0][0], a[1][1], a[2][2]], vectors)
}
