//! Threads of the caller.

/// A pool of threads that runs the tasks of a kernel. The caller provides it, because two pools on the same cores slow
/// each other down.
pub trait Threads: Sync {
    /// Number of threads, from 1.
    fn count(&self) -> usize;

    /// Runs `task(i)` for every `i` in `0..tasks`, on any thread in any order, and returns when all have ended.
    fn run(&self, tasks: usize, task: &(dyn Fn(usize) + Sync));
}

/// The calling thread alone.
#[derive(Debug, Clone, Copy, Default)]
pub struct OneThread;

impl Threads for OneThread {
    fn count(&self) -> usize {
        1
    }

    fn run(&self, tasks: usize, task: &(dyn Fn(usize) + Sync)) {
        (0..tasks).for_each(task);
    }
}
