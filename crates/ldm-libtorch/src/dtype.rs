//! libtorch's numbers of dtypes.

use std::ffi::c_int;

use tch::Kind;

/// libtorch's number of a dtype (`c10::ScalarType`), which tch keeps to itself.
pub(crate) fn dtype(kind: Kind) -> c_int {
    match kind {
        Kind::Uint8 => 0,
        Kind::Int8 => 1,
        Kind::Int16 => 2,
        Kind::Int => 3,
        Kind::Int64 => 4,
        Kind::Half => 5,
        Kind::Float => 6,
        Kind::Double => 7,
        Kind::Bool => 11,
        Kind::BFloat16 => 15,
        Kind::Float8e5m2 => 23,
        Kind::Float8e4m3fn => 24,
        other => panic!("a dtype of weights is needed here, not {other:?}"),
    }
}
