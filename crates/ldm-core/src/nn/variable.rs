//! Parameters: initialized for training, or left uninitialized for weights to be loaded.
//!
//! [`skip_init`] sets a thread-local flag, the one ambient state of the workspace. Constructors of all networks take
//! tch's `Path`, which has no room for a flag, and an extra argument would pass through every layer of every crate for a
//! choice that is made once per model. The flag only lives during one call on one thread, and nothing but the values of
//! new parameters depends on it.

use std::cell::Cell;

use tch::Tensor;
use tch::nn::{Init, Path};

thread_local! {
    static SKIP_INIT: Cell<bool> = const { Cell::new(false) };
}

/// Builds a model without initializing its weights, which come from a file: large parameters are never written to, and
/// so take no memory on the CPU yet. Their values are undefined; load them before the first forward. libtorch's global
/// generator does not change.
///
/// It applies to parameters created on this thread by [`variable`] and the layers of this module. Their dtype is the
/// store's ([`tch::nn::VarStore::set_kind`] before building), so that no other is ever in memory.
pub fn skip_init<T>(build: impl FnOnce() -> T) -> T {
    struct Reset(bool);
    impl Drop for Reset {
        fn drop(&mut self) {
            SKIP_INIT.set(self.0);
        }
    }
    let _reset = Reset(SKIP_INIT.replace(true));
    build()
}

/// Returns whether this runs inside [`skip_init`].
pub(super) fn skips_init() -> bool {
    SKIP_INIT.get()
}

/// Creates the trainable parameter `name` of `vs` with `init`, or uninitialized inside [`skip_init`].
pub fn variable(vs: &Path, name: &str, shape: &[i64], init: Init) -> Tensor {
    if skips_init() {
        vs.add(name, Tensor::empty(shape, (vs.kind(), vs.device())), true)
    } else {
        vs.var(name, shape, init)
    }
}
