//! Pairs of feature sets: checks and distances.

use ldm_core::{Error, Result};
use tch::{Kind, Tensor};

/// Checks that both sets are `[N, D]` and `[M, D]`, and returns them in f64 on the device of the first.
pub(crate) fn check_pair(a: &Tensor, b: &Tensor) -> Result<[Tensor; 2]> {
    for (what, set) in [("the first features", a), ("the second features", b)] {
        if set.dim() != 2 || set.size()[1] != a.size()[a.dim() - 1] || set.size()[0] == 0 {
            return Err(Error::Shape {
                what: what.into(),
                expected: "[N, D] with equal D".into(),
                got: set.size(),
            });
        }
    }
    Ok([a, b].map(|set| set.detach().to_device(a.device()).to_kind(Kind::Double)))
}

/// Distances of each of `a` to each of `b`, `[N, M]`, without matrix products, which lose the small distances of close
/// neighbors.
pub(crate) fn distances(a: &Tensor, b: &Tensor) -> Tensor {
    Tensor::cdist(a, b, 2., Some(2)) // 2: no matrix products
}
