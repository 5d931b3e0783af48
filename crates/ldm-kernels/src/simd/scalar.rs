//! One value at a time, in portable Rust.

use super::Simd;

pub(crate) struct Scalar;

impl Simd for Scalar {
    type V = f32;
    const LANES: usize = 1;
    const TILE_ROWS: [usize; 3] = [6, 6, 4];

    #[inline(always)]
    unsafe fn splat(x: f32) -> f32 {
        x
    }
    #[inline(always)]
    unsafe fn load(from: *const f32) -> f32 {
        // SAFETY: the caller's promise, here and below.
        unsafe { from.read() }
    }
    #[inline(always)]
    unsafe fn load_first(from: *const f32, count: usize) -> f32 {
        if count == 0 { 0. } else { unsafe { from.read() } }
    }
    #[inline(always)]
    unsafe fn store(to: *mut f32, v: f32) {
        unsafe { to.write(v) }
    }
    #[inline(always)]
    unsafe fn store_first(to: *mut f32, v: f32, count: usize) {
        if count > 0 {
            unsafe { to.write(v) }
        }
    }
    #[inline(always)]
    unsafe fn load_bf16(from: *const u16) -> f32 {
        unsafe { f32::from_bits(u32::from(from.read()) << 16) }
    }
    #[inline(always)]
    unsafe fn store_bf16(to: *mut u16, v: f32) {
        let bits = v.to_bits();
        let rounded = bits.wrapping_add(0x7fff + (bits >> 16 & 1));
        let rounded = if v.is_nan() { bits | 1 << 22 } else { rounded };
        unsafe { to.write((rounded >> 16) as u16) }
    }
    #[inline(always)]
    unsafe fn add(a: f32, b: f32) -> f32 {
        a + b
    }
    #[inline(always)]
    unsafe fn sub(a: f32, b: f32) -> f32 {
        a - b
    }
    #[inline(always)]
    unsafe fn mul(a: f32, b: f32) -> f32 {
        a * b
    }
    #[inline(always)]
    unsafe fn div(a: f32, b: f32) -> f32 {
        a / b
    }
    // `f32::mul_add` would call a C function here; the second rounding is within every bound.
    #[inline(always)]
    unsafe fn mul_add(a: f32, b: f32, c: f32) -> f32 {
        a * b + c
    }
    #[inline(always)]
    unsafe fn neg_mul_add(a: f32, b: f32, c: f32) -> f32 {
        c - a * b
    }
    #[inline(always)]
    unsafe fn max(a: f32, b: f32) -> f32 {
        if a > b { a } else { b }
    }
    #[inline(always)]
    unsafe fn min(a: f32, b: f32) -> f32 {
        if a < b { a } else { b }
    }
    #[inline(always)]
    unsafe fn abs(a: f32) -> f32 {
        a.abs()
    }
    #[inline(always)]
    unsafe fn copy_sign(a: f32, sign: f32) -> f32 {
        a.copysign(sign)
    }
    #[inline(always)]
    unsafe fn tile<const R: usize, const N: usize>(
        a: *const f32,
        a_stride: usize,
        b: *const f32,
        depth: usize,
        sums: &mut [[f32; N]; R],
    ) {
        for k in 0..depth {
            for (r, sums) in sums.iter_mut().enumerate() {
                for (n, sum) in sums.iter_mut().enumerate() {
                    *sum += unsafe { *a.add(r * a_stride + k) * *b.add(k * N + n) };
                }
            }
        }
    }
    #[inline(always)]
    unsafe fn sum(v: f32) -> f32 {
        v
    }
    #[inline(always)]
    unsafe fn greatest(v: f32) -> f32 {
        v
    }
    #[inline(always)]
    unsafe fn transpose(from: *const f32, _: usize, to: *mut f32, _: usize) {
        unsafe { to.write(*from) }
    }
    #[inline(always)]
    unsafe fn scale(a: f32, n: f32) -> f32 {
        f32::from_bits(a.to_bits().wrapping_add(n.to_bits() << 23))
    }
}
