//! AVX-512-BF16: sums of products of pairs.

#[allow(clippy::wildcard_imports, reason = "the names are Intel's")]
use std::arch::x86_64::*;

use super::Avx512;
use super::register_tile::register_tile;
use crate::product::Multiply;

/// Pairs of bf16 numbers, each in the place of an f32 value: a product of pairs is a₀·b₀ + a₁·b₁, summed in f32.
pub(crate) struct Bf16Pairs;

impl Multiply<Avx512> for Bf16Pairs {
    #[inline(always)]
    unsafe fn tile<const R: usize, const N: usize>(
        a: *const f32,
        a_stride: usize,
        b: *const f32,
        depth: usize,
        sums: &mut [[__m512; N]; R],
    ) {
        // SAFETY: the caller's promise, and the instructions are those of `run_bf16`.
        unsafe { tile(a, a_stride, b, depth, sums) }
    }
}

/// [`Simd::store_bf16`](super::Simd::store_bf16) in one instruction.
///
/// # Safety
/// The processor has AVX-512-BF16, and 16 numbers may be written.
#[inline(always)]
pub(crate) unsafe fn convert_to_bf16(to: *mut u16, v: __m512) {
    // SAFETY: the caller's promise.
    unsafe { round(to, v) }
}

#[target_feature(enable = "avx512f,avx512bf16")]
#[inline]
unsafe fn round(to: *mut u16, v: __m512) {
    // SAFETY: a vector of 16 numbers is 32 bytes of any alignment.
    unsafe { to.cast::<__m256bh>().write_unaligned(_mm512_cvtneps_pbh(v)) }
}

register_tile!("avx512f,avx512bf16", __m512, 16, zmm_reg, _mm512_loadu_ps, _mm512_setzero_ps, "vdpbf16ps");
