//! Aligned and reused memory.

use std::cell::RefCell;

/// One cache line, so that vector loads from the start of a buffer never cross one.
#[derive(Clone, Copy)]
#[repr(C, align(64))]
struct Line([f32; Self::VALUES]);

impl Line {
    const VALUES: usize = 16;
    const ZERO: Self = Self([0.; Self::VALUES]);
}

/// f32 values that start at a cache line.
#[derive(Clone, Default)]
pub(crate) struct Buffer(Vec<Line>);

impl Buffer {
    /// Creates a buffer of at least `len` zeros.
    pub(crate) fn zeros(len: usize) -> Self {
        Self(vec![Line::ZERO; len.div_ceil(Line::VALUES)])
    }

    pub(crate) fn as_ptr(&self) -> *const f32 {
        self.0.as_ptr().cast()
    }

    pub(crate) fn as_mut_ptr(&mut self) -> *mut f32 {
        self.0.as_mut_ptr().cast()
    }

    pub(crate) fn as_mut_slice(&mut self) -> &mut [f32] {
        // SAFETY: lines are arrays of f32 without padding.
        unsafe { std::slice::from_raw_parts_mut(self.as_mut_ptr(), self.len()) }
    }

    /// Number of values.
    pub(crate) fn len(&self) -> usize {
        self.0.len() * Line::VALUES
    }
}

thread_local! {
    /// This thread's workspace. New memory would cost a page fault every 4 KB in each call.
    static WORKSPACE: RefCell<Buffer> = RefCell::new(Buffer::default());
}

/// Calls `body` with this thread's workspace of at least `len` values, whatever they are. It lives until the thread ends;
/// kernels bound `len` to what fits the cache, a few megabytes.
#[inline(always)]
pub(crate) fn workspace(len: usize) -> Workspace {
    let mut buffer = WORKSPACE.take();
    if buffer.len() < len {
        buffer = Buffer::zeros(len);
    }
    Workspace(buffer)
}

/// This thread's workspace while a task has it.
pub(crate) struct Workspace(Buffer);

impl Workspace {
    #[inline(always)]
    pub(crate) fn as_mut_ptr(&mut self) -> *mut f32 {
        self.0.as_mut_ptr()
    }
}

impl Drop for Workspace {
    fn drop(&mut self) {
        WORKSPACE.set(std::mem::take(&mut self.0));
    }
}

/// A pointer to an output of which each task writes its own part.
#[derive(Clone, Copy)]
pub(crate) struct Output(*mut f32);

// SAFETY: the tasks that share it write disjoint parts, as each kernel says.
unsafe impl Sync for Output {}
unsafe impl Send for Output {}

impl Output {
    pub(crate) fn new(values: &mut [f32]) -> Self {
        Self(values.as_mut_ptr())
    }

    #[inline(always)]
    pub(crate) fn at(self, offset: usize) -> *mut f32 {
        // An offset beyond the end is a bug of the kernel and never accessed; `wrapping_add` makes computing it harmless.
        self.0.wrapping_add(offset)
    }
}
