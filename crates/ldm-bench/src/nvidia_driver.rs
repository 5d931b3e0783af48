//! Detection of an NVIDIA driver. `cargo xtask setup` includes this file, to choose the variant of libtorch.

use std::env;
use std::path::Path;

/// Folders of the driver's library in distributions, containers and WSL.
const LIBRARY_FOLDERS: [&str; 6] = [
    "usr/lib/x86_64-linux-gnu",
    "usr/lib/aarch64-linux-gnu",
    "usr/lib64",
    "usr/lib",
    "usr/lib/wsl/lib",
    "usr/local/nvidia/lib64",
];

/// Returns whether a driver is loaded, or its library installed where programs find it.
pub(crate) fn is_present() -> bool {
    let path = env::var_os("LD_LIBRARY_PATH").unwrap_or_default();
    is_present_under(Path::new("/"))
        || env::split_paths(&path).any(|folder| folder.join("libcuda.so.1").exists())
}

fn is_present_under(root: &Path) -> bool {
    root.join("proc/driver/nvidia/version").exists()
        || root.join("dev/nvidiactl").exists()
        || LIBRARY_FOLDERS.iter().any(|folder| root.join(folder).join("libcuda.so.1").exists())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_sign_suffices() {
        for sign in ["proc/driver/nvidia/version", "dev/nvidiactl", "usr/lib/wsl/lib/libcuda.so.1"] {
            let root = tempfile::tempdir().unwrap();
            assert!(!is_present_under(root.path()));
            let path = root.path().join(sign);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, "").unwrap();
            assert!(is_present_under(root.path()), "{sign}");
        }
    }
}
