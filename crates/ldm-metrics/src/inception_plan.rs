//! What Inception-v3's blocks are made of.

/// A convolution: its name, channels, kernel down and across, stride; its border is kept (`same`) unless it strides.
pub(crate) type Unit = (&'static str, i64, [i64; 2], i64);

/// What a branch begins with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Pool {
    None,
    /// Of 3x3, without the border's zeros in its means.
    Mean,
    /// Of 3x3.
    Max,
    /// Of 3x3 in steps of two.
    Half,
}

/// One way through a block.
#[derive(Debug, Clone)]
pub(crate) struct Branch {
    pub(crate) pool: Pool,
    /// One after the other.
    pub(crate) units: Vec<Unit>,
    /// Side by side, of what the last one gave; their results are joined.
    pub(crate) fork: Vec<Unit>,
}

const ONE: [i64; 2] = [1, 1];
const THREE: [i64; 2] = [3, 3];
const FIVE: [i64; 2] = [5, 5];
const ACROSS: [i64; 2] = [1, 7];
const DOWN: [i64; 2] = [7, 1];

fn branch(units: &[Unit]) -> Branch {
    Branch { pool: Pool::None, units: units.into(), fork: Vec::new() }
}

fn pooled(pool: Pool, units: &[Unit]) -> Branch {
    Branch { pool, ..branch(units) }
}

/// Every block after the first five convolutions, in the order of running. Szegedy et al. 2016, Tab. 1, with the averages
/// of the TensorFlow graph: torch-fidelity `feature_extractor_inceptionv3.py`, pytorch-fid `inception.py`.
pub(crate) fn blocks() -> Vec<(&'static str, Vec<Branch>)> {
    vec![
        ("Mixed_5b", a(32)),
        ("Mixed_5c", a(64)),
        ("Mixed_5d", a(64)),
        ("Mixed_6a", b()),
        ("Mixed_6b", c(128)),
        ("Mixed_6c", c(160)),
        ("Mixed_6d", c(160)),
        ("Mixed_6e", c(192)),
        ("Mixed_7a", d()),
        ("Mixed_7b", e(Pool::Mean)),
        // The graph has a maximum here where the paper and torchvision have a mean.
        ("Mixed_7c", e(Pool::Max)),
    ]
}

fn a(pool: i64) -> Vec<Branch> {
    vec![
        branch(&[("branch1x1", 64, ONE, 1)]),
        branch(&[("branch5x5_1", 48, ONE, 1), ("branch5x5_2", 64, FIVE, 1)]),
        branch(&[
            ("branch3x3dbl_1", 64, ONE, 1),
            ("branch3x3dbl_2", 96, THREE, 1),
            ("branch3x3dbl_3", 96, THREE, 1),
        ]),
        pooled(Pool::Mean, &[("branch_pool", pool, ONE, 1)]),
    ]
}

fn b() -> Vec<Branch> {
    vec![
        branch(&[("branch3x3", 384, THREE, 2)]),
        branch(&[
            ("branch3x3dbl_1", 64, ONE, 1),
            ("branch3x3dbl_2", 96, THREE, 1),
            ("branch3x3dbl_3", 96, THREE, 2),
        ]),
        pooled(Pool::Half, &[]),
    ]
}

fn c(narrow: i64) -> Vec<Branch> {
    vec![
        branch(&[("branch1x1", 192, ONE, 1)]),
        branch(&[
            ("branch7x7_1", narrow, ONE, 1),
            ("branch7x7_2", narrow, ACROSS, 1),
            ("branch7x7_3", 192, DOWN, 1),
        ]),
        branch(&[
            ("branch7x7dbl_1", narrow, ONE, 1),
            ("branch7x7dbl_2", narrow, DOWN, 1),
            ("branch7x7dbl_3", narrow, ACROSS, 1),
            ("branch7x7dbl_4", narrow, DOWN, 1),
            ("branch7x7dbl_5", 192, ACROSS, 1),
        ]),
        pooled(Pool::Mean, &[("branch_pool", 192, ONE, 1)]),
    ]
}

fn d() -> Vec<Branch> {
    vec![
        branch(&[("branch3x3_1", 192, ONE, 1), ("branch3x3_2", 320, THREE, 2)]),
        branch(&[
            ("branch7x7x3_1", 192, ONE, 1),
            ("branch7x7x3_2", 192, ACROSS, 1),
            ("branch7x7x3_3", 192, DOWN, 1),
            ("branch7x7x3_4", 192, THREE, 2),
        ]),
        pooled(Pool::Half, &[]),
    ]
}

fn e(pool: Pool) -> Vec<Branch> {
    let forked = |units: &[Unit], names: [&'static str; 2]| Branch {
        fork: vec![(names[0], 384, [1, 3], 1), (names[1], 384, [3, 1], 1)],
        ..branch(units)
    };
    vec![
        branch(&[("branch1x1", 320, ONE, 1)]),
        forked(&[("branch3x3_1", 384, ONE, 1)], ["branch3x3_2a", "branch3x3_2b"]),
        forked(
            &[("branch3x3dbl_1", 448, ONE, 1), ("branch3x3dbl_2", 384, THREE, 1)],
            ["branch3x3dbl_3a", "branch3x3dbl_3b"],
        ),
        pooled(pool, &[("branch_pool", 192, ONE, 1)]),
    ]
}
