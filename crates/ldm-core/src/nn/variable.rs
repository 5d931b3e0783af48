//! Parameters: drawn for training, or left as they are for weights to come.

use std::cell::Cell;

use tch::Tensor;
use tch::nn::{Init, Path};

thread_local! {
    static SKIP_INIT: Cell<bool> = const { Cell::new(false) };
}

/// Builds a model whose weights come from a file: large parameters are neither drawn nor written to, and so take no
/// memory on the CPU yet. Their values are whatever lay there; load before the first forward. libtorch's global generator
/// stays as it is.
///
/// Parameters are made on this thread by [`variable`] and the layers of this module. Their dtype is the store's
/// ([`tch::nn::VarStore::set_kind`] before anything is built), so that no other is ever in memory.
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

/// Whether this is inside [`skip_init`].
pub(super) fn is_skip_init() -> bool {
    SKIP_INIT.get()
}

/// The trainable parameter `name` of `vs`, drawn as `init` says; inside [`skip_init`] of any values.
pub fn variable(vs: &Path, name: &str, shape: &[i64], init: Init) -> Tensor {
    if is_skip_init() {
        vs.add(name, Tensor::empty(shape, (vs.kind(), vs.device())), true)
    } else {
        vs.var(name, shape, init)
    }
}
