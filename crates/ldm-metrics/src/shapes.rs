//! What two sets of features have in common.

use ldm_core::{Error, Result};
use tch::{Kind, Tensor};

/// Both in f64 on the first one's device, `[N, D]` and `[M, D]`.
pub(crate) fn alike(a: &Tensor, b: &Tensor) -> Result<[Tensor; 2]> {
    for (what, set) in [("the first features", a), ("the second features", b)] {
        if set.dim() != 2 || set.size()[1] != a.size()[a.dim() - 1] || set.size()[0] == 0 {
            return Err(Error::Shape {
                what: what.into(),
                expected: "[N, D], of one D for both".into(),
                got: set.size(),
            });
        }
    }
    Ok([a, b].map(|set| set.detach().to_device(a.device()).to_kind(Kind::Double)))
}

/// Of each of `a` from each of `b`, `[N, M]`: pair by pair and not by products, which lose what near neighbors have apart.
pub(crate) fn distances(a: &Tensor, b: &Tensor) -> Tensor {
    Tensor::cdist(a, b, 2., Some(2)) // 2: never by products
}
