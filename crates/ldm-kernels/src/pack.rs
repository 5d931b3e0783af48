//! Weights in the order in which the products read them.

use crate::element::Element;
use crate::simd::Simd;

/// Rows of weights `[K, C]` to pack.
#[derive(Clone, Copy)]
pub(crate) struct PanelRows<T> {
    /// The first row, at the first column to pack.
    pub(crate) from: *const T,
    /// Distance of the rows.
    pub(crate) stride: usize,
    /// Rows; those beyond, up to the width of a panel, are zero.
    pub(crate) rows: usize,
    /// Columns to pack.
    pub(crate) depth: usize,
}

/// Writes a panel of two vectors, `to[k][row] = weights[row][k]`.
///
/// # Safety
/// As [`Simd`]; `to` has room for `depth` rows of two vectors.
#[inline(always)]
pub(crate) unsafe fn pack_panel<S: Simd, T: Element>(weights: PanelRows<T>, to: *mut f32) {
    let PanelRows { from, stride, rows, depth } = weights;
    let width = 2 * S::LANES;
    for vector in 0..2 {
        let first = vector * S::LANES;
        let count = rows.saturating_sub(first).min(S::LANES);
        // SAFETY: `count` rows of `depth` values are read, and written to their places in the panel.
        unsafe {
            let (from, to) = (from.wrapping_add(first * stride), to.add(first));
            let mut k = 0;
            if count == S::LANES {
                while k + S::LANES <= depth {
                    T::transpose::<S>(from.add(k), stride, to.add(k * width), width);
                    k += S::LANES;
                }
            }
            while k < depth {
                for row in 0..S::LANES {
                    let value = if row < count { (*from.add(row * stride + k)).widen() } else { 0. };
                    *to.add(k * width + row) = value;
                }
                k += 1;
            }
        }
    }
}
