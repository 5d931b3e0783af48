//! The Gaussian error linear unit.

use crate::simd::Simd;

/// x·Φ(x), with erf by Abramowitz & Stegun 7.1.26 (absolute error 1.5e-7).
#[inline(always)]
pub(crate) unsafe fn gelu<S: Simd>(x: S::V) -> S::V {
    // SAFETY: arithmetic alone.
    unsafe {
        let one = S::splat(1.);
        let z = S::mul(S::abs(x), S::splat(std::f32::consts::FRAC_1_SQRT_2));
        let t = S::div(one, S::mul_add(z, S::splat(0.327_591_1), one));
        let mut sum = S::splat(1.061_405_4);
        sum = S::mul_add(sum, t, S::splat(-1.453_152));
        sum = S::mul_add(sum, t, S::splat(1.421_413_7));
        sum = S::mul_add(sum, t, S::splat(-0.284_496_74));
        sum = S::mul_add(sum, t, S::splat(0.254_829_6));
        let decay = S::exp(S::sub(S::splat(0.), S::mul(z, z)));
        let erf = S::copy_sign(S::neg_mul_add(S::mul(sum, t), decay, one), x);
        S::mul(S::mul(S::splat(0.5), x), S::add(one, erf))
    }
}
