//! Dtype numbers of libtorch.

use std::ffi::c_int;

use tch::Kind;

/// Returns the number of a dtype in libtorch (`c10::ScalarType`), which tch does not expose.
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
        other => panic!("expected a dtype of weights, got {other:?}"),
    }
}
