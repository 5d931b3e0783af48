//! Plan of Inception-v3's blocks.

/// A convolution: name, channels, kernel height and width, stride; `same` padding with stride 1, else none.
pub(crate) type Unit = (&'static str, i64, [i64; 2], i64);

/// Pooling at the start of a branch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum BranchPool {
    None,
    /// 3x3 average pooling, without the padding in its means.
    Mean,
    /// 3x3 max pooling.
    Max,
    /// 3x3 max pooling of stride 2.
    Half,
}

/// One branch of a block.
#[derive(Debug, Clone)]
pub(crate) struct Branch {
    pub(crate) pool: BranchPool,
    /// Convolutions in sequence.
    pub(crate) units: Vec<Unit>,
    /// Parallel convolutions of the result, concatenated.
    pub(crate) fork: Vec<Unit>,
}

const ONE: [i64; 2] = [1, 1];
const THREE: [i64; 2] = [3, 3];
const FIVE: [i64; 2] = [5, 5];
const ACROSS: [i64; 2] = [1, 7];
const DOWN: [i64; 2] = [7, 1];

fn branch(units: &[Unit]) -> Branch {
    Branch { pool: BranchPool::None, units: units.into(), fork: Vec::new() }
}

fn pooled(pool: BranchPool, units: &[Unit]) -> Branch {
    Branch { pool, ..branch(units) }
}

/// Every block after the first five convolutions, in order of execution. Szegedy et al. 2016, Tab. 1, with the average
/// pooling of the TensorFlow graph: torch-fidelity `feature_extractor_inceptionv3.py`, pytorch-fid `inception.py`.
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
        ("Mixed_7b", e(BranchPool::Mean)),
        // The graph has max pooling here, the paper and torchvision average pooling.
        ("Mixed_7c", e(BranchPool::Max)),
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
        pooled(BranchPool::Mean, &[("branch_pool", pool, ONE, 1)]),
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
        pooled(BranchPool::Half, &[]),
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
        pooled(BranchPool::Mean, &[("branch_pool", 192, ONE, 1)]),
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
        pooled(BranchPool::Half, &[]),
    ]
}

fn e(pool: BranchPool) -> Vec<Branch> {
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
