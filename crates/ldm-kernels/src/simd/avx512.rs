//! AVX-512F.

#[allow(clippy::wildcard_imports, reason = "the names are Intel's")]
use std::arch::x86_64::*;

use super::Simd;
use super::register_tile::register_tile;

pub(crate) struct Avx512;

/// The mask of the first `count` lanes; all for 16 or more.
#[inline(always)]
fn first(count: usize) -> __mmask16 {
    if count >= 16 { !0 } else { (1 << count) - 1 }
}

// SAFETY (of every block): the trait's promise, that the instructions exist and the pointers are valid.
impl Simd for Avx512 {
    type V = __m512;
    const LANES: usize = 16;
    const TILE_ROWS: [usize; 3] = [14, 14, 8];

    #[inline(always)]
    unsafe fn splat(x: f32) -> __m512 {
        unsafe { _mm512_set1_ps(x) }
    }
    #[inline(always)]
    unsafe fn load(from: *const f32) -> __m512 {
        unsafe { _mm512_loadu_ps(from) }
    }
    #[inline(always)]
    unsafe fn load_first(from: *const f32, count: usize) -> __m512 {
        unsafe { _mm512_maskz_loadu_ps(first(count), from) }
    }
    #[inline(always)]
    unsafe fn store(to: *mut f32, v: __m512) {
        unsafe { _mm512_storeu_ps(to, v) }
    }
    #[inline(always)]
    unsafe fn store_first(to: *mut f32, v: __m512, count: usize) {
        unsafe { _mm512_mask_storeu_ps(to, first(count), v) }
    }
    #[inline(always)]
    unsafe fn load_bf16(from: *const u16) -> __m512 {
        unsafe {
            let bits = _mm512_cvtepu16_epi32(_mm256_loadu_si256(from.cast()));
            _mm512_castsi512_ps(_mm512_slli_epi32::<16>(bits))
        }
    }
    #[inline(always)]
    unsafe fn store_bf16(to: *mut u16, v: __m512) {
        unsafe {
            let bits = _mm512_castps_si512(v);
            let odd = _mm512_and_si512(_mm512_srli_epi32::<16>(bits), _mm512_set1_epi32(1));
            let rounded = _mm512_add_epi32(bits, _mm512_add_epi32(odd, _mm512_set1_epi32(0x7fff)));
            let quiet = _mm512_or_si512(bits, _mm512_set1_epi32(1 << 22));
            let is_nan = _mm512_cmp_ps_mask::<_CMP_UNORD_Q>(v, v);
            let upper = _mm512_srli_epi32::<16>(_mm512_mask_mov_epi32(rounded, is_nan, quiet));
            _mm256_storeu_si256(to.cast(), _mm512_cvtepi32_epi16(upper));
        }
    }
    #[inline(always)]
    unsafe fn add(a: __m512, b: __m512) -> __m512 {
        unsafe { _mm512_add_ps(a, b) }
    }
    #[inline(always)]
    unsafe fn sub(a: __m512, b: __m512) -> __m512 {
        unsafe { _mm512_sub_ps(a, b) }
    }
    #[inline(always)]
    unsafe fn mul(a: __m512, b: __m512) -> __m512 {
        unsafe { _mm512_mul_ps(a, b) }
    }
    #[inline(always)]
    unsafe fn div(a: __m512, b: __m512) -> __m512 {
        unsafe { _mm512_div_ps(a, b) }
    }
    #[inline(always)]
    unsafe fn mul_add(a: __m512, b: __m512, c: __m512) -> __m512 {
        unsafe { _mm512_fmadd_ps(a, b, c) }
    }
    #[inline(always)]
    unsafe fn neg_mul_add(a: __m512, b: __m512, c: __m512) -> __m512 {
        unsafe { _mm512_fnmadd_ps(a, b, c) }
    }
    #[inline(always)]
    unsafe fn max(a: __m512, b: __m512) -> __m512 {
        unsafe { _mm512_max_ps(a, b) }
    }
    #[inline(always)]
    unsafe fn min(a: __m512, b: __m512) -> __m512 {
        unsafe { _mm512_min_ps(a, b) }
    }
    #[inline(always)]
    unsafe fn abs(a: __m512) -> __m512 {
        unsafe { _mm512_abs_ps(a) }
    }
    #[inline(always)]
    unsafe fn copy_sign(a: __m512, sign: __m512) -> __m512 {
        unsafe {
            let bit = _mm512_set1_epi32(i32::MIN);
            let sign = _mm512_and_si512(_mm512_castps_si512(sign), bit);
            _mm512_castsi512_ps(_mm512_or_si512(_mm512_andnot_si512(bit, _mm512_castps_si512(a)), sign))
        }
    }
    #[inline(always)]
    unsafe fn tile<const R: usize, const N: usize>(
        a: *const f32,
        a_stride: usize,
        b: *const f32,
        depth: usize,
        sums: &mut [[__m512; N]; R],
    ) {
        unsafe { tile(a, a_stride, b, depth, sums) }
    }
    #[inline(always)]
    unsafe fn sum(v: __m512) -> f32 {
        unsafe { _mm512_reduce_add_ps(v) }
    }
    #[inline(always)]
    unsafe fn greatest(v: __m512) -> f32 {
        unsafe { _mm512_reduce_max_ps(v) }
    }
    #[inline(always)]
    unsafe fn transpose(from: *const f32, from_stride: usize, to: *mut f32, to_stride: usize) {
        for column in (0..16).step_by(4) {
            unsafe {
                let at = from.add(column);
                // Four values of the rows r, r + 4, r + 8 and r + 12: a transposition inside the 128-bit lanes is all it takes.
                let mut rows = [_mm512_setzero_ps(); 4];
                for (r, row) in rows.iter_mut().enumerate() {
                    let at = at.add(r * from_stride);
                    let first = _mm512_castps128_ps512(_mm_loadu_ps(at));
                    let two = _mm512_insertf32x4::<1>(first, _mm_loadu_ps(at.add(4 * from_stride)));
                    let three = _mm512_insertf32x4::<2>(two, _mm_loadu_ps(at.add(8 * from_stride)));
                    *row = _mm512_insertf32x4::<3>(three, _mm_loadu_ps(at.add(12 * from_stride)));
                }
                let low = [_mm512_unpacklo_ps(rows[0], rows[1]), _mm512_unpacklo_ps(rows[2], rows[3])];
                let high = [_mm512_unpackhi_ps(rows[0], rows[1]), _mm512_unpackhi_ps(rows[2], rows[3])];
                for (half, [first, second]) in [low, high].into_iter().enumerate() {
                    let (first, second) = (_mm512_castps_pd(first), _mm512_castps_pd(second));
                    let to = to.add((column + 2 * half) * to_stride);
                    _mm512_storeu_ps(to, _mm512_castpd_ps(_mm512_unpacklo_pd(first, second)));
                    _mm512_storeu_ps(to.add(to_stride), _mm512_castpd_ps(_mm512_unpackhi_pd(first, second)));
                }
            }
        }
    }
    #[inline(always)]
    unsafe fn scale(a: __m512, n: __m512) -> __m512 {
        unsafe {
            let exponent = _mm512_slli_epi32::<23>(_mm512_castps_si512(n));
            _mm512_castsi512_ps(_mm512_add_epi32(_mm512_castps_si512(a), exponent))
        }
    }
}

register_tile!("avx512f", __m512, 16, zmm_reg, _mm512_loadu_ps, _mm512_setzero_ps, "vfmadd231ps");
