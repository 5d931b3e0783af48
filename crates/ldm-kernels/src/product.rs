//! Matrix products of blocks that fit the cache.

use crate::simd::Simd;

/// Rows of the inner dimension that are multiplied at a time: a panel of 2 vectors has 32 KB, the size of the L1 cache.
const DEPTH: usize = 256;

/// The register tile of a product, for one way of storing its numbers.
pub(crate) trait Multiply<S: Simd> {
    /// As [`Simd::tile`], where a "value" of `a` and `b` is 4 bytes of numbers that are multiplied and summed.
    ///
    /// # Safety
    /// As [`Simd`].
    unsafe fn tile<const R: usize, const N: usize>(
        a: *const f32,
        a_stride: usize,
        b: *const f32,
        depth: usize,
        sums: &mut [[S::V; N]; R],
    );
}

/// One f32 value after the other.
pub(crate) struct F32;

impl<S: Simd> Multiply<S> for F32 {
    #[inline(always)]
    unsafe fn tile<const R: usize, const N: usize>(
        a: *const f32,
        a_stride: usize,
        b: *const f32,
        depth: usize,
        sums: &mut [[S::V; N]; R],
    ) {
        // SAFETY: the caller's promise.
        unsafe { S::tile(a, a_stride, b, depth, sums) }
    }
}

/// A block of rows times a packed panel: `c[rows, N·LANES] (+)= a[rows, depth] · b[depth, N·LANES]`.
#[derive(Clone, Copy)]
pub(crate) struct Panel {
    pub(crate) a: *const f32,
    /// Distance of the rows of `a`.
    pub(crate) a_stride: usize,
    pub(crate) rows: usize,
    /// Contiguous, rows of N vectors.
    pub(crate) b: *const f32,
    pub(crate) depth: usize,
    pub(crate) c: *mut f32,
    /// Distance of the rows of `c`.
    pub(crate) c_stride: usize,
    /// Adds to `c` instead of overwriting it.
    pub(crate) accumulate: bool,
}

/// Computes a panel of N vectors, 1 to 3.
///
/// # Safety
/// As [`Simd`]; the matrices of `panel` are valid.
#[inline(always)]
pub(crate) unsafe fn panel<S: Simd, T: Multiply<S>, const N: usize>(panel: Panel) {
    let mut start = 0;
    loop {
        let depth = DEPTH.min(panel.depth - start);
        let part = Panel {
            a: panel.a.wrapping_add(start),
            b: panel.b.wrapping_add(start * N * S::LANES),
            depth,
            accumulate: panel.accumulate || start > 0,
            ..panel
        };
        // SAFETY: the caller's promise.
        unsafe { rows::<S, T, N>(part) };
        start += depth;
        if start >= panel.depth {
            break;
        }
    }
}

/// Splits the rows into register tiles.
#[inline(always)]
unsafe fn rows<S: Simd, T: Multiply<S>, const N: usize>(panel: Panel) {
    let mut row = 0;
    // The branches are on constants of the level.
    // SAFETY: the caller's promise.
    unsafe {
        match S::TILE_ROWS[N - 1] {
            14 => row = tiles::<S, T, 14, N>(panel, row),
            8 => row = tiles::<S, T, 8, N>(panel, row),
            6 => row = tiles::<S, T, 6, N>(panel, row),
            _ => {}
        }
        row = tiles::<S, T, 4, N>(panel, row);
        row = tiles::<S, T, 2, N>(panel, row);
        tiles::<S, T, 1, N>(panel, row);
    }
}

/// Computes as many tiles of R rows as there are, from `row` on; returns the next row.
#[inline(always)]
unsafe fn tiles<S: Simd, T: Multiply<S>, const R: usize, const N: usize>(
    panel: Panel,
    mut row: usize,
) -> usize {
    while row + R <= panel.rows {
        // SAFETY: the caller's promise.
        unsafe { tile::<S, T, R, N>(panel, row) };
        row += R;
    }
    row
}

/// The register tile: R·N sums of products.
#[inline(always)]
unsafe fn tile<S: Simd, T: Multiply<S>, const R: usize, const N: usize>(panel: Panel, row: usize) {
    let a = panel.a.wrapping_add(row * panel.a_stride);
    let c = panel.c.wrapping_add(row * panel.c_stride);
    // SAFETY: the caller's promise.
    unsafe {
        let mut sums = [[S::splat(0.); N]; R];
        if panel.accumulate {
            for (r, sums) in sums.iter_mut().enumerate() {
                for (n, sum) in sums.iter_mut().enumerate() {
                    *sum = S::load(c.add(r * panel.c_stride + n * S::LANES));
                }
            }
        }
        T::tile(a, panel.a_stride, panel.b, panel.depth, &mut sums);
        for (r, sums) in sums.iter().enumerate() {
            for (n, &sum) in sums.iter().enumerate() {
                S::store(c.add(r * panel.c_stride + n * S::LANES), sum);
            }
        }
    }
}
