//! A matrix or a kernel, whole or as a product of factors.

use tch::{Kind, Tensor};

/// A matrix `[m, n]`, or a kernel `[m, n, kh, kw]`.
#[derive(Debug)]
pub enum FactorMatrix {
    /// The tensor itself.
    Whole(Tensor),
    /// `left · right`, `[m, r]` and `[r, n, …]`.
    Product {
        /// `[m, r]`.
        left: Tensor,
        /// `[r, n]`, or `[r, n, kh, kw]`.
        right: Tensor,
    },
    /// A Tucker decomposition: `Σ_ij core_ij · left_mi · right_jn` at each place of the kernel.
    Tucker {
        /// `[m, r]`.
        left: Tensor,
        /// `[r, n]`.
        right: Tensor,
        /// `[r, r, kh, kw]`.
        core: Tensor,
    },
}

impl FactorMatrix {
    /// The shape of the value; none where the factors do not fit each other, and where an axis is empty.
    pub(super) fn shape(&self) -> Option<Vec<i64>> {
        let shape = match self {
            Self::Whole(tensor) => tensor.size(),
            Self::Product { left, right } => match (left.size().as_slice(), right.size().as_slice()) {
                ([m, r], [s, rest @ ..]) if r == s && *r > 0 => [&[*m], rest].concat(),
                _ => return None,
            },
            Self::Tucker { left, right, core } => {
                match (left.size().as_slice(), right.size().as_slice(), core.size().as_slice()) {
                    ([m, r], [s, n], [a, b, kernel @ ..]) if r == a && s == b && *r > 0 && *s > 0 => {
                        [&[*m, *n], kernel].concat()
                    }
                    _ => return None,
                }
            }
        };
        (shape.len() >= 2 && !shape.contains(&0)).then_some(shape)
    }

    /// The rank `r`; none of a whole tensor.
    pub(super) fn rank(&self) -> Option<i64> {
        match self {
            Self::Whole(_) => None,
            Self::Product { right, .. } | Self::Tucker { right, .. } => right.size().first().copied(),
        }
    }

    /// Computes the value in f32 on the device of `like`, `[m, n, …]`.
    ///
    /// # Panics
    /// Where [`FactorMatrix::shape`] is none.
    pub(super) fn value(&self, like: &Tensor) -> Tensor {
        let wide = |tensor: &Tensor| tensor.to_device(like.device()).to_kind(Kind::Float);
        let shape = self.shape().expect("checked by Update::fits");
        match self {
            Self::Whole(tensor) => wide(tensor),
            Self::Product { left, right } => wide(left).mm(&wide(right).flatten(1, -1)).view(&*shape),
            Self::Tucker { left, right, core } => {
                let (left, right, core) = (wide(left), wide(right), wide(core).flatten(2, -1));
                Tensor::einsum("ijk,mi,jn->mnk", &[core, left, right], None::<i64>).reshape(&*shape)
            }
        }
    }
}
