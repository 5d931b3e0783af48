//! The low-rank update of one weight.

use tch::{Kind, Tensor};

/// The update `alpha/r · B·A` of one weight. Hu et al. 2021, eq. 3.
#[derive(Debug)]
pub struct Adapter {
    /// `A`: `[r, in]`, or `[r, in, kh, kw]`.
    pub down: Tensor,
    /// `B`: `[out, r]`, or `[out, r, 1, 1]`.
    pub up: Tensor,
    /// Numerator of the scale; the rank is its denominator.
    pub alpha: f64,
}

impl Adapter {
    /// The rank `r`.
    pub fn rank(&self) -> i64 {
        self.down.size()[0]
    }

    /// The scale `alpha/r`.
    pub fn scale(&self) -> f64 {
        self.alpha / self.rank() as f64
    }

    /// Returns true for an update of a weight of `shape`. Kernels of 1 may be omitted.
    pub fn fits(&self, shape: &[i64]) -> bool {
        let (down, up) = (self.down.size(), self.up.size());
        let ([rank, rows @ ..], [out, columns @ ..]) = (down.as_slice(), up.as_slice()) else { return false };
        let [first, rest @ ..] = shape else { return false };
        *rank > 0 && out == first && bare(columns) == bare(&[*rank]) && bare(rows) == bare(rest)
    }

    /// Computes `strength · alpha/r · B·A` in f32, on the device of `B`.
    ///
    /// # Shapes
    /// - `shape`: that of the weight; returns the same
    ///
    /// # Panics
    /// When it does not [fit](Self::fits) `shape`.
    pub fn change(&self, shape: &[i64], strength: f64) -> Tensor {
        let (down, up) = (self.down.to_kind(Kind::Float), self.up.to_kind(Kind::Float));
        let product = up.flatten(1, -1).mm(&down.flatten(1, -1)); // [out, in·kh·kw]
        (product * (strength * self.scale())).view(shape)
    }
}

/// A shape without trailing kernels of 1, with at least one dimension.
pub(super) fn bare(shape: &[i64]) -> &[i64] {
    let mut shape = shape;
    while let [rest @ .., 1] = shape
        && !rest.is_empty()
    {
        shape = rest;
    }
    shape
}
