//! The register tile, the inner loop of all products, at the levels with vectors.

/// Defines `tile`, which computes [`Simd::tile`](super::Simd::tile) with vectors `$vector` of `$lanes` values in registers of the
/// class `$register`, by the instruction `$multiply_add` of a sum and two factors.
///
/// `tile` is a function of its own, since assembly needs to know its instructions. A row is in assembly, because LLVM would load
/// the values of all rows first, and spill the sums.
macro_rules! register_tile {
    ($features:literal, $vector:ty, $lanes:literal, $register:ident, $load:ident, $zero:ident, $multiply_add:literal) => {
        /// [`Simd::tile`] in registers.
        #[target_feature(enable = $features)]
        unsafe fn tile<const R: usize, const N: usize>(
            a: *const f32,
            a_stride: usize,
            b: *const f32,
            depth: usize,
            result: &mut [[$vector; N]; R],
        ) {
            let mut sums = *result;
            for k in 0..depth {
                let mut row = [$zero(); N];
                for (n, row) in row.iter_mut().enumerate() {
                    // SAFETY: the caller's promise, here and below.
                    *row = unsafe { $load(b.add((k * N + n) * $lanes)) };
                }
                for (r, sums) in sums.iter_mut().enumerate() {
                    unsafe { accumulate(a.add(r * a_stride + k), &row, sums) };
                }
            }
            *result = sums;
        }

        /// `sums += a·b` for one value `a` and N vectors.
        #[target_feature(enable = $features)]
        #[inline]
        unsafe fn accumulate<const N: usize>(a: *const f32, b: &[$vector; N], sums: &mut [$vector; N]) {
            // SAFETY: reads one value.
            unsafe {
                match (&mut sums[..], &b[..]) {
                    ([s0], [b0]) => std::arch::asm!(
                        "vbroadcastss {a}, dword ptr [{at}]",
                        concat!($multiply_add, " {s0}, {a}, {b0}"),
                        s0 = inout($register) *s0, b0 = in($register) *b0,
                        a = out($register) _, at = in(reg) a,
                        options(pure, readonly, nostack, preserves_flags),
                    ),
                    ([s0, s1], [b0, b1]) => std::arch::asm!(
                        "vbroadcastss {a}, dword ptr [{at}]",
                        concat!($multiply_add, " {s0}, {a}, {b0}"),
                        concat!($multiply_add, " {s1}, {a}, {b1}"),
                        s0 = inout($register) *s0, b0 = in($register) *b0,
                        s1 = inout($register) *s1, b1 = in($register) *b1,
                        a = out($register) _, at = in(reg) a,
                        options(pure, readonly, nostack, preserves_flags),
                    ),
                    ([s0, s1, s2], [b0, b1, b2]) => std::arch::asm!(
                        "vbroadcastss {a}, dword ptr [{at}]",
                        concat!($multiply_add, " {s0}, {a}, {b0}"),
                        concat!($multiply_add, " {s1}, {a}, {b1}"),
                        concat!($multiply_add, " {s2}, {a}, {b2}"),
                        s0 = inout($register) *s0, b0 = in($register) *b0,
                        s1 = inout($register) *s1, b1 = in($register) *b1,
                        s2 = inout($register) *s2, b2 = in($register) *b2,
                        a = out($register) _, at = in(reg) a,
                        options(pure, readonly, nostack, preserves_flags),
                    ),
                    _ => unreachable!("tiles have one to three vectors"),
                }
            }
        }
    };
}

pub(super) use register_tile;
