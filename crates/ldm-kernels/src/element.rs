//! Numbers of maps and weights in memory: f32, or bf16 by its bits. All arithmetic is in f32.

use crate::simd::{MAX_LANES, Simd};

/// A number in memory.
pub(crate) trait Element: Copy + Send + Sync + 'static {
    /// The value.
    fn widen(self) -> f32;

    /// Loads the first `count` numbers; the others are zero and not read.
    ///
    /// # Safety
    /// As [`Simd`].
    unsafe fn load_up_to<S: Simd>(from: *const Self, count: usize) -> S::V;

    /// Stores the first `count` values, rounded to nearest even.
    ///
    /// # Safety
    /// As [`Simd`].
    unsafe fn store_up_to<S: Simd>(to: *mut Self, v: S::V, count: usize);

    /// As [`Simd::transpose`].
    ///
    /// # Safety
    /// As [`Simd`].
    unsafe fn transpose<S: Simd>(from: *const Self, from_stride: usize, to: *mut f32, to_stride: usize);
}

impl Element for f32 {
    #[inline(always)]
    fn widen(self) -> f32 {
        self
    }

    #[inline(always)]
    unsafe fn load_up_to<S: Simd>(from: *const f32, count: usize) -> S::V {
        // SAFETY: the caller's promise, here and below.
        unsafe { S::load_up_to(from, count) }
    }

    #[inline(always)]
    unsafe fn store_up_to<S: Simd>(to: *mut f32, v: S::V, count: usize) {
        unsafe { S::store_up_to(to, v, count) }
    }

    #[inline(always)]
    unsafe fn transpose<S: Simd>(from: *const f32, from_stride: usize, to: *mut f32, to_stride: usize) {
        unsafe { S::transpose(from, from_stride, to, to_stride) }
    }
}

/// bf16: the upper half of an f32 value.
impl Element for u16 {
    #[inline(always)]
    fn widen(self) -> f32 {
        f32::from_bits(u32::from(self) << 16)
    }

    #[inline(always)]
    unsafe fn load_up_to<S: Simd>(from: *const u16, count: usize) -> S::V {
        // SAFETY: the caller's promise, here and below.
        unsafe {
            if count >= S::LANES {
                return S::load_bf16(from);
            }
            let mut whole = [0; MAX_LANES];
            whole.as_mut_ptr().copy_from_nonoverlapping(from, count);
            S::load_bf16(whole.as_ptr())
        }
    }

    #[inline(always)]
    unsafe fn store_up_to<S: Simd>(to: *mut u16, v: S::V, count: usize) {
        unsafe {
            if count >= S::LANES {
                return S::store_bf16(to, v);
            }
            let mut whole = [0; MAX_LANES];
            S::store_bf16(whole.as_mut_ptr(), v);
            to.copy_from_nonoverlapping(whole.as_ptr(), count);
        }
    }

    #[inline(always)]
    unsafe fn transpose<S: Simd>(from: *const u16, from_stride: usize, to: *mut f32, to_stride: usize) {
        let mut rows = [0_f32; MAX_LANES * MAX_LANES];
        unsafe {
            for row in 0..S::LANES {
                S::store(rows.as_mut_ptr().add(row * S::LANES), S::load_bf16(from.add(row * from_stride)));
            }
            S::transpose(rows.as_ptr(), S::LANES, to, to_stride);
        }
    }
}
