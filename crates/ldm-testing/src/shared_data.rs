//! Image sets outside the repository.

use std::path::Path;

/// The folder of the shared image sets, where it exists: `LDM_DATA`, or `../shared/data` beside the checkout.
/// A test without it says that it skips.
pub fn shared_data() -> Option<std::path::PathBuf> {
    let folder = std::env::var_os("LDM_DATA").map_or_else(
        || Path::new(env!("CARGO_MANIFEST_DIR")).join("../../../shared/data"),
        std::path::PathBuf::from,
    );
    folder.is_dir().then_some(folder)
}
