//! Sizes of blocks and grids. Every number follows from the sizes of the tensors and the GPU's limits alone, so that equal
//! inputs have equal bits.

/// Limits of a GPU.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct GpuLimits {
    /// Streaming multiprocessors.
    pub multiprocessors: i64,
    /// Bytes of shared memory that a block may have.
    pub shared_bytes: i64,
}

impl GpuLimits {
    /// H100: 132 multiprocessors, 227 KB (CUDA C++ Programming Guide, "Technical Specifications per Compute Capability").
    pub const SM_90: Self = Self { multiprocessors: 132, shared_bytes: 227 << 10 };
    /// A100: 108 multiprocessors, 163 KB.
    pub const SM_80: Self = Self { multiprocessors: 108, shared_bytes: 163 << 10 };
}

/// A channels_last map `[B, C, h, w]`, or rows as a map of one image.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct MapLayout {
    pub(crate) batch: i64,
    /// h·w.
    pub(crate) pixels: i64,
    pub(crate) channels: i64,
    pub(crate) element_bytes: i64,
    /// All pointers are multiples of 16 bytes.
    pub(crate) aligned: bool,
}

/// Blocks over a map: `ldm_tiling` of `csrc/ldm_torch.h`, explained in `kernels/arguments.h`.
#[repr(C)]
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct BlockTiling {
    /// Neighbors in one load.
    pub(crate) vector: i32,
    /// Channels of a block.
    pub(crate) width: i32,
    /// Pixels that a block reads at once.
    pub(crate) rows: i32,
    /// Pixels of a block.
    pub(crate) part_pixels: i32,
    /// Blocks over the pixels of an image.
    pub(crate) parts: i32,
    /// Threads of a block, in whole warps.
    pub(crate) threads: i32,
    /// Bytes of shared memory of a block.
    pub(crate) shared_bytes: i32,
}

/// Bytes of the widest load.
const WIDE: i64 = 16;
/// Bytes of the narrower load of slabs.
const NARROW: i64 = 8;
/// Bytes that DRAM and L2 move at once: a block reads at least as many of a pixel, where it can choose.
const SECTOR: i64 = 32;
/// Bytes of a pixel from which on a block of the other kernels loses nothing to neighbors.
const LINE: i64 = 128;
/// The largest block (`__launch_bounds__` in `kernels/element.h`).
const MAX_THREADS: i64 = 512;
/// Threads of blocks without a slab.
const THREADS: i64 = 256;
/// Shared memory that needs no permission, which only slabs ask for.
const PLAIN_SHARED_BYTES: i64 = 48 << 10;
/// CUDA's limit of the grid's second and third axis.
const MAX_GRID: i64 = 65535;
/// Blocks for each multiprocessor, so that the last ones to run leave few idle.
const WAVES: i64 = 4;
/// Pixels of a thread, at least: a thread first reads its channels' parameters.
const THREAD_PIXELS: i64 = 2;
/// f32 of each channel of a block next to its sums, at most: of a norm 4, of its gradient 6.
const COEFFICIENTS: i64 = 6;
const F32: i64 = 4;
const WARP: i64 = 32;

impl MapLayout {
    /// A group norm in one launch: each block has some groups of an image in its shared memory. None where they do not fit.
    pub(crate) fn slab(self, groups: i64, limits: GpuLimits) -> Option<BlockTiling> {
        self.check()?;
        let channels = self.channels / groups;
        let candidates = [WIDE, NARROW].into_iter().flat_map(|bytes| {
            divisors(groups).map(move |of_block| (bytes / self.element_bytes, of_block * channels))
        });
        let fitting = candidates.filter(|&(vector, width)| self.aligned && width % vector == 0).filter_map(
            |(vector, width)| {
                let columns = width / vector;
                let rows = (MAX_THREADS / columns).min(self.pixels);
                let slab_bytes = self.pixels * width * self.element_bytes;
                let shared_bytes = slab_bytes + moments_bytes(rows, width, width / channels);
                let fits = columns <= MAX_THREADS && shared_bytes <= limits.shared_bytes;
                fits.then(|| self.tiling(vector, width, rows, 1, shared_bytes))
            },
        );
        // The widest load, then the narrowest block of whole sectors, so that many blocks share the work.
        fitting.min_by_key(|tiling| {
            let pixel_bytes = i64::from(tiling.width) * self.element_bytes;
            (-tiling.vector, pixel_bytes < SECTOR, tiling.width)
        })
    }

    /// Blocks over parts of the pixels, of whole groups, with `arrays` f32 for each channel and row in shared memory. None for
    /// sizes that no kernel takes.
    pub(crate) fn split(self, groups: i64, arrays: i64, limits: GpuLimits) -> Option<BlockTiling> {
        self.check()?;
        let channels = self.channels / groups;
        let vector = self.vector();
        let widths = divisors(groups).map(|of_block| of_block * channels);
        let fitting = widths.filter(|width| width % vector == 0 && width / vector <= THREADS).map(|width| {
            let of_block = width / channels;
            let shared_bytes = |rows: i64| ((arrays * rows + COEFFICIENTS) * width + 2 * of_block) * F32;
            self.parted(vector, width, limits, shared_bytes)
        });
        fitting.filter(|tiling| i64::from(tiling.shared_bytes) <= PLAIN_SHARED_BYTES).min_by_key(|tiling| {
            let width = i64::from(tiling.width);
            ((LINE - width * self.element_bytes).max(0), width)
        })
    }

    /// Blocks over parts of the pixels and any channels, with one f32 for each channel in shared memory.
    pub(crate) fn plain(self, limits: GpuLimits) -> Option<BlockTiling> {
        self.check()?;
        let vector = self.vector();
        let columns = (self.channels / vector).min(THREADS / 2);
        Some(self.parted(vector, columns * vector, limits, |_| columns * vector * F32))
    }

    /// None for sizes beyond the kernels' integers or CUDA's grid.
    fn check(self) -> Option<()> {
        let Self { batch, pixels, channels, .. } = self;
        let fits = batch > 0 && pixels > 0 && channels > 0 && batch <= MAX_GRID && channels <= 1 << 20;
        (fits && pixels <= i64::from(i32::MAX) / 2).then_some(())
    }

    /// Neighbors of a wide load, or one where a row of channels is no multiple of it.
    fn vector(self) -> i64 {
        let wide = WIDE / self.element_bytes;
        if self.aligned && self.channels % wide == 0 { wide } else { 1 }
    }

    fn parted(
        self,
        vector: i64,
        width: i64,
        limits: GpuLimits,
        shared_bytes: impl Fn(i64) -> i64,
    ) -> BlockTiling {
        let rows = (THREADS * vector / width).clamp(1, self.pixels);
        let blocks = self.batch * ceil_div(self.channels, width);
        let most = ceil_div(self.pixels, rows * THREAD_PIXELS).min(MAX_GRID);
        let parts = ceil_div(WAVES * limits.multiprocessors, blocks).clamp(1, most);
        self.tiling(vector, width, rows, parts, shared_bytes(rows))
    }

    fn tiling(self, vector: i64, width: i64, rows: i64, parts: i64, shared_bytes: i64) -> BlockTiling {
        let part_pixels = ceil_div(self.pixels, parts);
        BlockTiling {
            vector: vector as i32,
            width: width as i32,
            rows: rows as i32,
            part_pixels: part_pixels as i32,
            parts: ceil_div(self.pixels, part_pixels) as i32,
            threads: (ceil_div(width / vector * rows, WARP) * WARP) as i32,
            shared_bytes: shared_bytes as i32,
        }
    }
}

/// f32 of moments: mean and squared deviations of each group, then of each row and channel, where the four coefficients of each
/// channel are later.
fn moments_bytes(rows: i64, width: i64, groups: i64) -> i64 {
    ((2 * rows).max(COEFFICIENTS - 2) * width + 2 * groups) * F32
}

fn divisors(of: i64) -> impl Iterator<Item = i64> {
    (1..=of).filter(move |each| of % each == 0)
}

fn ceil_div(a: i64, b: i64) -> i64 {
    (a + b - 1) / b
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const GROUPS: i64 = 32;

    fn map(batch: i64, channels: i64, side: i64, element_bytes: i64) -> MapLayout {
        MapLayout { batch, pixels: side * side, channels, element_bytes, aligned: true }
    }

    #[track_caller]
    fn check(
        of: MapLayout,
        groups: Option<i64>,
        arrays: i64,
        slab: bool,
        tiling: BlockTiling,
        limits: GpuLimits,
    ) {
        let BlockTiling { vector, width, rows, part_pixels, parts, threads, shared_bytes } = tiling;
        let [vector, width, rows] = [vector, width, rows].map(i64::from);
        let name = format!("{of:?} {tiling:?}");
        // Loads stay in a row of the map, and are aligned in it.
        assert!(width % vector == 0 && of.channels % vector == 0, "{name}");
        assert!(vector == 1 || of.aligned, "{name}");
        assert!([1, 2, 4, 8].contains(&vector) && vector * of.element_bytes <= WIDE, "{name}");
        // Blocks over channels end with the map, or with a group.
        if let Some(groups) = groups {
            let channels = of.channels / groups;
            assert!(of.channels % width == 0 && width % channels == 0, "{name}");
        }
        // Blocks over pixels: no part is empty, and together they are all.
        assert!(i64::from(part_pixels) * i64::from(parts) >= of.pixels, "{name}");
        assert!(i64::from(part_pixels) * (i64::from(parts) - 1) < of.pixels, "{name}");
        // CUDA's limits.
        assert!(threads % 32 == 0 && i64::from(threads) <= MAX_THREADS, "{name}");
        assert!(rows >= 1 && width / vector * rows <= i64::from(threads), "{name}");
        assert!(
            i64::from(parts) <= MAX_GRID && i64::from(shared_bytes) <= limits.shared_bytes.max(48 << 10),
            "{name}"
        );
        // The kernels' shared memory.
        let slab_bytes = if slab { of.pixels * width * of.element_bytes } else { 0 };
        let least = slab_bytes + (arrays * rows).max(if arrays == 0 { 1 } else { 4 }) * width * F32;
        assert!(i64::from(shared_bytes) >= least, "{name}");
        assert!(slab_bytes % F32 == 0, "{name}: f32 behind the slab");
    }

    proptest! {
        #![proptest_config(ProptestConfig { cases: 4096, ..ProptestConfig::default() })]

        #[test]
        fn tilings_cover_a_map_within_cudas_limits(
            batch in 1_i64..70, groups in 1_i64..65, channels in 1_i64..120, pixels in 1_i64..300_000,
            element_bytes in prop::sample::select(vec![2_i64, 4]), aligned in any::<bool>(),
            multiprocessors in 1_i64..200, shared_kb in 0_i64..228,
        ) {
            let limits = GpuLimits { multiprocessors, shared_bytes: shared_kb << 10 };
            let of = MapLayout { batch, pixels, channels: groups * channels, element_bytes, aligned };
            if let Some(tiling) = of.slab(groups, limits) {
                prop_assert_eq!(tiling.parts, 1);
                prop_assert!(i64::from(tiling.vector) * element_bytes >= NARROW);
                check(of, Some(groups), 2, true, tiling, limits);
            }
            for arrays in [2, 3] {
                check(of, Some(groups), arrays, false, of.split(groups, arrays, limits).unwrap(), limits);
            }
            check(of, None, 0, false, of.plain(limits).unwrap(), limits);
        }
    }

    /// The U-Net of Stable Diffusion at 64x64 in bf16: every norm is one launch on an H100.
    #[test]
    fn norms_of_stable_diffusion_are_slabs() {
        for (channels, side) in
            [(320, 64), (640, 64), (640, 32), (960, 32), (1280, 16), (2560, 16), (2560, 8)]
        {
            let of = map(2, channels, side, 2);
            let slab = of.slab(GROUPS, GpuLimits::SM_90).unwrap_or_else(|| panic!("{of:?}"));
            let blocks = of.batch * channels / i64::from(slab.width);
            assert!(blocks >= 8, "{of:?} {slab:?}");
        }
        // 10 channels of 2 bytes: two groups, in loads of 8 bytes; on an A100, where they do not fit, three launches.
        let first = map(2, 320, 64, 2);
        let slab = first.slab(GROUPS, GpuLimits::SM_90).unwrap();
        assert_eq!((slab.vector, slab.width), (4, 20));
        assert_eq!(first.slab(GROUPS, GpuLimits::SM_80), None);
        // The decoder's at 512x512.
        assert_eq!(map(1, 128, 512, 2).slab(GROUPS, GpuLimits::SM_90), None);
    }

    #[test]
    fn large_maps_fill_the_gpu() {
        for (channels, side) in [(128, 512), (256, 512), (512, 128), (320, 64)] {
            let of = map(1, channels, side, 2);
            let tiling = of.split(GROUPS, 3, GpuLimits::SM_90).unwrap();
            assert_eq!(tiling.vector, 8, "{of:?}");
            let blocks = i64::from(tiling.parts) * channels / i64::from(tiling.width);
            assert!(blocks >= 2 * GpuLimits::SM_90.multiprocessors, "{of:?} {tiling:?}");
        }
    }

    #[test]
    fn sizes_beyond_the_kernels_integers_are_not_served() {
        let of = MapLayout { batch: 1, pixels: 1 << 31, channels: 32, element_bytes: 2, aligned: true };
        assert_eq!(of.split(GROUPS, 2, GpuLimits::SM_90), None);
        assert_eq!(MapLayout { batch: 1 << 16, pixels: 1, ..of }.plain(GpuLimits::SM_90), None);
        // A group of more channels than a block has threads, one at a time.
        assert_eq!(
            MapLayout { batch: 1, pixels: 4, channels: 32 * 999, ..of }.split(GROUPS, 2, GpuLimits::SM_90),
            None
        );
    }
}
