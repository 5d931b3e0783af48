//! The compiled kernels, which `cargo xtask kernels` writes.

use std::ffi::CStr;
use std::sync::OnceLock;

use crate::ffi;

macro_rules! compiled {
    ($($module:literal)*) => {
        [$((
            match CStr::from_bytes_with_nul(concat!($module, "\0").as_bytes()) {
                Ok(name) => name,
                Err(_) => panic!("a name without NUL"),
            },
            include_bytes!(concat!("../../kernels/compiled/", $module, ".ptx")),
            include_bytes!(concat!("../../kernels/compiled/", $module, ".sm_90.cubin")),
        )),*]
    };
}

/// A file of `kernels/`: its name, PTX and code of sm_90.
const MODULES: [(&CStr, &[u8], &[u8]); 4] = compiled!["group_norm" "group_norm_backward" "bias_add" "geglu"];

/// Gives them to the driver, once.
pub(super) fn add() -> Result<(), String> {
    static ADDED: OnceLock<Result<(), String>> = OnceLock::new();
    let add = || {
        let mut all = MODULES.iter();
        all.try_for_each(|(name, ptx, cubin)| {
            ffi::add_compiled(name, ptx, cubin).map_err(|error| error.to_string())
        })
    };
    ADDED.get_or_init(add).clone()
}
