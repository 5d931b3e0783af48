//! Linear layers: products with weights in PyTorch's layout.
//!
//! A task takes some rows and some output features. It packs its weights for the register tile, a part that stays in the
//! L2 cache, and multiplies its rows with them. From some dozens of rows on packing is a few percent of the work, and
//! weights that are packed once would need their memory twice.

use crate::Level;
use crate::buffer::{Output, workspace};
use crate::gelu::gelu;
use crate::pack::{PanelRows, pack_panel};
use crate::product::{F32, Panel, panel};
use crate::simd::{Simd, SimdKernel, run};
use crate::threads::Threads;

/// The parameters of a linear layer.
#[derive(Debug, Clone, Copy)]
pub struct LinearParameters<'a> {
    /// Features of the input, C.
    pub features: usize,
    /// `[K, C]`.
    pub weight: &'a [f32],
    /// `[K]`.
    pub bias: Option<&'a [f32]>,
}

/// Rows of a block: their inputs stay in the L2 cache next to the packed weights.
const ROWS: usize = 56;
/// Input features that are packed at a time. The output holds the sums of the parts.
const DEPTH: usize = 1024;
/// Packed weights of a task, in values: 512 KB, half of the smallest L2 cache of processors with AVX-512.
const PACKED: usize = 128 << 10;

/// `x·weightᵀ + bias + residual` for `x` `[rows, C]`, into `output` `[rows, K]`; `residual` `[rows, K]`.
///
/// # Panics
/// When a slice does not have the size that the others require, or `level` is not available.
pub fn linear(
    threads: &dyn Threads,
    level: Level,
    x: &[f32],
    parameters: LinearParameters<'_>,
    residual: Option<&[f32]>,
    output: &mut [f32],
) {
    let features_out = parameters.features_out();
    let rows = parameters.rows(level, x);
    assert_eq!(output.len(), rows * features_out, "output [rows, K]");
    assert!(residual.is_none_or(|residual| residual.len() == output.len()), "residual [rows, K]");
    let depth = parameters.features.min(DEPTH);
    let plan = TaskPlan::new(threads, level, rows, features_out, depth);
    let kernel = Products { x, parameters, residual, rows, depth, plan, output: Output::new(output) };
    threads.run(plan.tasks(), &|task| {
        // SAFETY: the level is available (`rows`), and the task runs once.
        unsafe { run(level, &kernel, task) }
    });
}

/// x·gelu(gate) of a linear layer with the outputs `[x, gate]`, into `output` `[rows, K / 2]` (Shazeer 2020; CompVis
/// `attention.py:38`). gelu is the exact one.
///
/// # Panics
/// When a slice does not have the size that the others require, or `level` is not available.
pub fn linear_geglu(
    threads: &dyn Threads,
    level: Level,
    x: &[f32],
    parameters: LinearParameters<'_>,
    output: &mut [f32],
) {
    let rows = parameters.rows(level, x);
    assert!(parameters.features_out().is_multiple_of(2), "a weight [2·width, C]");
    let width = parameters.features_out() / 2;
    assert_eq!(output.len(), rows * width, "output [rows, K / 2]");
    let plan = TaskPlan::new(threads, level, rows, width, 2 * parameters.features);
    let kernel = GatedProducts { x, parameters, width, rows, plan, output: Output::new(output) };
    threads.run(plan.tasks(), &|task| {
        // SAFETY: the level is available (`rows`), and the task runs once.
        unsafe { run(level, &kernel, task) }
    });
}

impl LinearParameters<'_> {
    /// Output features, K.
    fn features_out(&self) -> usize {
        self.weight.len().checked_div(self.features).unwrap_or_default()
    }

    /// Checks the parameters; returns the rows of `x`.
    fn rows(&self, level: Level, x: &[f32]) -> usize {
        assert!(level.is_available(), "{level} is not available on this processor");
        assert!(self.features > 0, "input features");
        assert!(self.weight.len().is_multiple_of(self.features), "weight [K, C]");
        assert!(self.bias.is_none_or(|bias| bias.len() == self.features_out()), "bias [K]");
        assert!(x.len().is_multiple_of(self.features), "x [rows, C]");
        x.len() / self.features
    }

    /// Packs the columns from `column` on of the rows of a panel: `count` rows from `first` on.
    #[inline(always)]
    unsafe fn pack<S: Simd>(&self, [first, count]: [usize; 2], [column, depth]: [usize; 2], to: *mut f32) {
        let from = self.weight.as_ptr().wrapping_add(first * self.features + column);
        // SAFETY: the caller's promise, that the rows and columns exist.
        unsafe { pack_panel::<S, _>(PanelRows { from, stride: self.features, rows: count, depth }, to) };
    }

    /// `count` values of the bias from `first` on, or zeros.
    #[inline(always)]
    unsafe fn bias<S: Simd>(&self, first: usize, count: usize) -> S::V {
        // SAFETY: the caller's promise, that the values exist.
        unsafe {
            match self.bias {
                Some(bias) => S::load_up_to(bias.as_ptr().add(first), count),
                None => S::splat(0.),
            }
        }
    }
}

/// The division of the output into tasks.
#[derive(Clone, Copy)]
struct TaskPlan {
    /// Output features of a panel.
    width: usize,
    /// Output features of a task.
    features: usize,
    /// Groups of output features, one a task.
    groups: usize,
    /// Rows of a task.
    part: usize,
    /// Parts of the rows.
    parts: usize,
}

impl TaskPlan {
    /// `depth`: values that are packed for an output feature.
    fn new(threads: &dyn Threads, level: Level, rows: usize, features: usize, depth: usize) -> Self {
        let width = 2 * level.lanes();
        let panels = (PACKED / (depth * width).max(1)).max(1);
        let groups = features.div_ceil(width).div_ceil(panels).max(1);
        // Groups of equal size, and enough tasks that no thread waits long for the last one.
        let group = features.div_ceil(width).div_ceil(groups).max(1) * width;
        let wanted = (4 * threads.count()).div_ceil(groups);
        let part = rows.div_ceil(wanted).max(4 * ROWS).next_multiple_of(ROWS);
        let parts = if features == 0 { 0 } else { rows.div_ceil(part) };
        Self { width, features: group, groups, part, parts }
    }

    fn tasks(self) -> usize {
        self.groups * self.parts
    }

    /// The first output feature and the first row of a task.
    #[inline(always)]
    fn start(self, task: usize) -> (usize, usize) {
        (task % self.groups * self.features, task / self.groups * self.part)
    }
}

struct Products<'a> {
    x: &'a [f32],
    parameters: LinearParameters<'a>,
    residual: Option<&'a [f32]>,
    rows: usize,
    /// Input features that are packed at a time.
    depth: usize,
    plan: TaskPlan,
    /// A task writes its features of its rows.
    output: Output,
}

impl SimdKernel for Products<'_> {
    #[inline(always)]
    unsafe fn task<S: Simd>(&self, task: usize) {
        let (first, row) = self.plan.start(task);
        let width = self.plan.width;
        let end = self.parameters.features_out().min(first + self.plan.features);
        let rows = row..self.rows.min(row + self.plan.part);
        let mut workspace = workspace(self.plan.features * self.depth + ROWS * width);
        let packed = workspace.as_mut_ptr();
        let sums = packed.wrapping_add(self.plan.features * self.depth);
        let mut column = 0;
        while column < self.parameters.features {
            let depth = self.depth.min(self.parameters.features - column);
            // SAFETY: the workspace has room for the panels and a block of sums; rows, columns and features exist.
            unsafe {
                let mut feature = first;
                while feature < end {
                    let to = packed.add((feature - first) * depth);
                    self.parameters.pack::<S>([feature, width.min(end - feature)], [column, depth], to);
                    feature += width;
                }
                let mut row = rows.start;
                while row < rows.end {
                    let mut feature = first;
                    while feature < end {
                        let block = Block { row, rows: ROWS.min(rows.end - row), feature, column, depth };
                        self.block::<S>(block, packed.add((feature - first) * depth), sums);
                        feature += width;
                    }
                    row += ROWS;
                }
            }
            column += depth;
        }
    }
}

/// Rows times a panel.
#[derive(Clone, Copy)]
struct Block {
    row: usize,
    rows: usize,
    feature: usize,
    column: usize,
    depth: usize,
}

impl Products<'_> {
    /// Adds the products of a block to the output; a panel that is not full goes through `sums`.
    #[inline(always)]
    unsafe fn block<S: Simd>(&self, block: Block, packed: *const f32, sums: *mut f32) {
        let Block { row, rows, feature, column, depth } = block;
        let (features, features_out) = (self.parameters.features, self.parameters.features_out());
        let count = self.plan.width.min(features_out - feature);
        let is_full = count == self.plan.width;
        let output = self.output.at(row * features_out + feature);
        let (c, c_stride) = if is_full { (output, features_out) } else { (sums, self.plan.width) };
        // SAFETY: the features of the rows are this task's.
        unsafe {
            if column == 0 {
                self.start::<S>(block, count, c, c_stride);
            } else if !is_full {
                copy::<S>([rows, count], (output.cast_const(), features_out), (c, c_stride));
            }
            let a = self.x.as_ptr().add(row * features + column);
            let accumulate = true;
            panel::<S, F32, 2>(Panel {
                a,
                a_stride: features,
                rows,
                b: packed,
                depth,
                c,
                c_stride,
                accumulate,
            });
            if !is_full {
                copy::<S>([rows, count], (c.cast_const(), c_stride), (output, features_out));
            }
        }
    }

    /// Writes what the products are added to: the bias and the residual.
    #[inline(always)]
    unsafe fn start<S: Simd>(&self, block: Block, count: usize, c: *mut f32, c_stride: usize) {
        for vector in 0..2 {
            let first = vector * S::LANES;
            if first >= count {
                break;
            }
            let lanes = count - first;
            // SAFETY: `lanes` features of the rows exist.
            unsafe {
                let bias = self.parameters.bias::<S>(block.feature + first, lanes);
                for row in 0..block.rows {
                    let mut value = bias;
                    if let Some(residual) = self.residual {
                        let at = (block.row + row) * self.parameters.features_out() + block.feature + first;
                        value = S::add(value, S::load_up_to(residual.as_ptr().add(at), lanes));
                    }
                    S::store_up_to(c.add(row * c_stride + first), value, lanes);
                }
            }
        }
    }
}

/// Copies rows of `count` values between two strides.
#[inline(always)]
unsafe fn copy<S: Simd>([rows, count]: [usize; 2], from: (*const f32, usize), to: (*mut f32, usize)) {
    for row in 0..rows {
        let mut column = 0;
        while column < count {
            // SAFETY: the caller's promise.
            unsafe {
                let value = S::load_up_to(from.0.add(row * from.1 + column), count - column);
                S::store_up_to(to.0.add(row * to.1 + column), value, count - column);
            }
            column += S::LANES;
        }
    }
}

struct GatedProducts<'a> {
    x: &'a [f32],
    parameters: LinearParameters<'a>,
    /// Features of x, and of the gate.
    width: usize,
    rows: usize,
    plan: TaskPlan,
    /// A task writes its features of its rows.
    output: Output,
}

impl SimdKernel for GatedProducts<'_> {
    #[inline(always)]
    unsafe fn task<S: Simd>(&self, task: usize) {
        let (first, row) = self.plan.start(task);
        let (width, depth) = (self.plan.width, self.parameters.features);
        let end = self.width.min(first + self.plan.features);
        let rows = row..self.rows.min(row + self.plan.part);
        let mut workspace = workspace(2 * (self.plan.features * depth + ROWS * width));
        let sums = workspace.as_mut_ptr(); // [2, ROWS, width]
        let packed = sums.wrapping_add(2 * ROWS * width); // [panels, 2, C, width]
        // SAFETY: the workspace has room for both; rows, columns and features exist.
        unsafe {
            let mut feature = first;
            while feature < end {
                let count = width.min(end - feature);
                let to = packed.add(2 * (feature - first) * depth);
                self.parameters.pack::<S>([feature, count], [0, depth], to);
                self.parameters.pack::<S>([self.width + feature, count], [0, depth], to.add(depth * width));
                feature += width;
            }
            let mut row = rows.start;
            while row < rows.end {
                let count = ROWS.min(rows.end - row);
                let mut feature = first;
                while feature < end {
                    let packed = packed.add(2 * (feature - first) * depth);
                    self.block::<S>([row, count], [feature, width.min(end - feature)], packed, sums);
                    feature += width;
                }
                row += ROWS;
            }
        }
    }
}

impl GatedProducts<'_> {
    /// `features` features from `feature` on, of `rows` rows from `row` on.
    #[inline(always)]
    unsafe fn block<S: Simd>(
        &self,
        [row, rows]: [usize; 2],
        [feature, features]: [usize; 2],
        packed: *const f32,
        sums: *mut f32,
    ) {
        let (width, depth) = (self.plan.width, self.parameters.features);
        let gates = sums.wrapping_add(ROWS * width);
        // SAFETY: the features of the rows are this task's; `sums` has two blocks.
        unsafe {
            let x = self.x.as_ptr().add(row * depth);
            let of_x = Panel {
                a: x,
                a_stride: depth,
                rows,
                b: packed,
                depth,
                c: sums,
                c_stride: width,
                accumulate: false,
            };
            panel::<S, F32, 2>(of_x);
            panel::<S, F32, 2>(Panel { b: packed.add(depth * width), c: gates, ..of_x });
            let mut column = 0;
            while column < features {
                let lanes = features - column;
                let bias = self.parameters.bias::<S>(feature + column, lanes);
                let gate_bias = self.parameters.bias::<S>(self.width + feature + column, lanes);
                for r in 0..rows {
                    let x = S::add(S::load(sums.add(r * width + column)), bias);
                    let gate = S::add(S::load(gates.add(r * width + column)), gate_bias);
                    let to = self.output.at((row + r) * self.width + feature + column);
                    S::store_up_to(to, S::mul(x, gelu::<S>(gate)), lanes);
                }
                column += S::LANES;
            }
        }
    }
}
