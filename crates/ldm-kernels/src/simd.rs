//! Vectors of f32: the operations that the kernels are written in, at each level.
//!
//! A kernel is one generic function over [`Simd`]. [`run`] calls it inside a function that has the instructions of the
//! level; everything in between is `#[inline(always)]`, so that the compiler sees one function with these instructions.
//! Closures are avoided there: they would be functions without them.

#[cfg(target_arch = "x86_64")]
mod avx2;
#[cfg(target_arch = "x86_64")]
mod avx512;
#[cfg(target_arch = "x86_64")]
mod avx512_bf16;
#[cfg(target_arch = "x86_64")]
mod register_tile;
mod scalar;

#[cfg(target_arch = "x86_64")]
pub(crate) use avx2::Avx2;
#[cfg(target_arch = "x86_64")]
pub(crate) use avx512::Avx512;
#[cfg(target_arch = "x86_64")]
pub(crate) use avx512_bf16::{Bf16Pairs, convert_to_bf16};
pub(crate) use scalar::Scalar;

use crate::Level;

/// Operations on vectors of [`Simd::LANES`] values.
///
/// # Safety
/// All functions need the instructions of the level. Pointers must be valid for the values that are read or written; they
/// need no alignment.
pub(crate) trait Simd: 'static {
    type V: Copy;
    const LANES: usize;
    /// Rows of a register tile of 1, 2 and 3 vectors: as many accumulators as the registers hold.
    const TILE_ROWS: [usize; 3];

    unsafe fn splat(x: f32) -> Self::V;
    unsafe fn load(from: *const f32) -> Self::V;
    /// Loads the first `count` values; the others are zero and not read.
    unsafe fn load_first(from: *const f32, count: usize) -> Self::V;
    unsafe fn store(to: *mut f32, v: Self::V);
    /// Stores the first `count` values.
    unsafe fn store_first(to: *mut f32, v: Self::V, count: usize);
    /// Loads bf16 numbers.
    unsafe fn load_bf16(from: *const u16) -> Self::V;
    /// Stores bf16 numbers, rounded to nearest even; NaN stays NaN.
    unsafe fn store_bf16(to: *mut u16, v: Self::V);
    unsafe fn add(a: Self::V, b: Self::V) -> Self::V;
    unsafe fn sub(a: Self::V, b: Self::V) -> Self::V;
    unsafe fn mul(a: Self::V, b: Self::V) -> Self::V;
    unsafe fn div(a: Self::V, b: Self::V) -> Self::V;
    /// a·b + c, rounded once.
    unsafe fn mul_add(a: Self::V, b: Self::V, c: Self::V) -> Self::V;
    /// c − a·b, rounded once.
    unsafe fn neg_mul_add(a: Self::V, b: Self::V, c: Self::V) -> Self::V;
    /// The greater; `b` if either is NaN.
    unsafe fn max(a: Self::V, b: Self::V) -> Self::V;
    /// The smaller; `b` if either is NaN.
    unsafe fn min(a: Self::V, b: Self::V) -> Self::V;
    /// |a|.
    unsafe fn abs(a: Self::V) -> Self::V;
    /// |a| with the sign of `sign`.
    unsafe fn copy_sign(a: Self::V, sign: Self::V) -> Self::V;
    /// The sums of a register tile: `sums[r][n] += Σ_k a[r·a_stride + k] · b[k][n]` for `depth` values of k; `b` has rows of N
    /// vectors.
    unsafe fn tile<const R: usize, const N: usize>(
        a: *const f32,
        a_stride: usize,
        b: *const f32,
        depth: usize,
        sums: &mut [[Self::V; N]; R],
    );
    /// Transposes a square of [`Simd::LANES`] rows: `to[j][i] = from[i][j]`.
    unsafe fn transpose(from: *const f32, from_stride: usize, to: *mut f32, to_stride: usize);
    /// a·2ⁿ for the integer n in the low bits of `n`, as f32 bits.
    unsafe fn scale(a: Self::V, n: Self::V) -> Self::V;

    /// The first `count` values, all of them in one instruction if possible.
    #[inline(always)]
    unsafe fn load_up_to(from: *const f32, count: usize) -> Self::V {
        // SAFETY: the caller's promise.
        unsafe { if count >= Self::LANES { Self::load(from) } else { Self::load_first(from, count) } }
    }

    /// As [`Simd::load_up_to`].
    #[inline(always)]
    unsafe fn store_up_to(to: *mut f32, v: Self::V, count: usize) {
        // SAFETY: the caller's promise.
        unsafe { if count >= Self::LANES { Self::store(to, v) } else { Self::store_first(to, v, count) } }
    }

    /// The sum over the lanes.
    unsafe fn sum(v: Self::V) -> f32;
    /// The greatest lane; any value if one is NaN.
    unsafe fn greatest(v: Self::V) -> f32;

    /// eˣ with a relative error below 2e-7 on [−87, 88]; beyond, its value at the bound. NaN stays NaN.
    ///
    /// x = n·ln 2 + r, and e^r by its Taylor polynomial of degree 6 for |r| ≤ ln 2 / 2 (error 1.2e-7 of its last term).
    #[inline(always)]
    unsafe fn exp(x: Self::V) -> Self::V {
        // SAFETY: arithmetic alone.
        unsafe {
            let x = Self::min(Self::splat(88.), Self::max(Self::splat(-87.), x));
            // The sum's low bits hold n: 1.5·2²³ has a last place of 1.
            let magic = Self::splat(12_582_912.);
            let shifted = Self::mul_add(x, Self::splat(std::f32::consts::LOG2_E), magic);
            let n = Self::sub(shifted, magic);
            // ln 2 in two parts, the first of which has few enough bits for an exact product.
            let r = Self::neg_mul_add(n, Self::splat(0.693_359_4), x);
            let r = Self::neg_mul_add(n, Self::splat(-2.121_944_4e-4), r);
            let mut sum = Self::splat(1. / 720.);
            sum = Self::mul_add(sum, r, Self::splat(1. / 120.));
            sum = Self::mul_add(sum, r, Self::splat(1. / 24.));
            sum = Self::mul_add(sum, r, Self::splat(1. / 6.));
            sum = Self::mul_add(sum, r, Self::splat(0.5));
            sum = Self::mul_add(sum, r, Self::splat(1.));
            sum = Self::mul_add(sum, r, Self::splat(1.));
            Self::scale(sum, shifted)
        }
    }

    /// x·sigmoid(x).
    #[inline(always)]
    unsafe fn silu(x: Self::V) -> Self::V {
        // SAFETY: arithmetic alone.
        unsafe {
            let decay = Self::exp(Self::sub(Self::splat(0.), x));
            Self::div(x, Self::add(Self::splat(1.), decay))
        }
    }
}

/// The most lanes of any level.
pub(crate) const MAX_LANES: usize = 16;

/// A kernel: its tasks run independently of each other.
pub(crate) trait SimdKernel: Sync {
    /// Runs one task. Implementations are `#[inline(always)]`.
    ///
    /// # Safety
    /// The processor has the instructions of `S`, and no other thread runs the same task.
    unsafe fn task<S: Simd>(&self, task: usize);
}

/// Runs a task of `kernel` at `level`.
///
/// # Safety
/// As [`SimdKernel::task`].
pub(crate) unsafe fn run<K: SimdKernel>(level: Level, kernel: &K, task: usize) {
    // SAFETY: the caller's promise.
    unsafe {
        match level {
            Level::Scalar => kernel.task::<Scalar>(task),
            #[cfg(target_arch = "x86_64")]
            Level::Avx2 => with_avx2(kernel, task),
            #[cfg(target_arch = "x86_64")]
            Level::Avx512 => with_avx512(kernel, task),
            #[cfg(not(target_arch = "x86_64"))]
            Level::Avx2 | Level::Avx512 => kernel.task::<Scalar>(task),
        }
    }
}

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx2,fma")]
unsafe fn with_avx2<K: SimdKernel>(kernel: &K, task: usize) {
    // SAFETY: the caller's promise.
    unsafe { kernel.task::<Avx2>(task) }
}

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx512f,avx2,fma")]
unsafe fn with_avx512<K: SimdKernel>(kernel: &K, task: usize) {
    // SAFETY: the caller's promise.
    unsafe { kernel.task::<Avx512>(task) }
}

/// A kernel of AVX-512-BF16.
#[cfg(target_arch = "x86_64")]
pub(crate) trait Bf16Kernel: Sync {
    /// As [`SimdKernel::task`].
    ///
    /// # Safety
    /// As [`SimdKernel::task`].
    unsafe fn task(&self, task: usize);
}

/// Runs a task of `kernel`.
///
/// # Safety
/// The processor has AVX-512-BF16; else as [`SimdKernel::task`].
#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx512f,avx512bf16,avx2,fma")]
pub(crate) unsafe fn run_bf16<K: Bf16Kernel>(kernel: &K, task: usize) {
    // SAFETY: the caller's promise.
    unsafe { kernel.task(task) }
}
