//! The wheel in a fresh Python environment.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail, ensure};

use super::packages_folder;
use crate::checkout::Checkout;

/// The page for Python users, whose first block of commands installs the wheel.
const GUIDE: &str = "docs/guide/python.md";

/// Installs the wheel of `target/packages` as the guide says, into an environment in `target/wheel-check`, and runs the tests of
/// the package there. An environment that is there already is used again, since torch has gigabytes.
///
/// # Errors
/// When there is no wheel or more than one, and when an installation or a test fails.
pub(crate) fn run(checkout: &Checkout) -> Result<()> {
    let root = checkout.root();
    let folder = checkout.target()?.join("wheel-check");
    fs::create_dir_all(&folder).with_context(|| folder.display().to_string())?;
    for old in wheels(&folder)? {
        fs::remove_file(old)?;
    }
    let packages = packages_folder(checkout)?;
    let found = wheels(&packages)?;
    let [wheel] = &found[..] else {
        bail!(
            "{}: expected one wheel, got {}; try `cargo xtask dist --wheel` in an empty folder",
            packages.display(),
            found.len()
        );
    };
    fs::copy(wheel, folder.join(wheel.file_name().context("a file")?))?;
    let python = folder.join("venv/bin/python");
    if python.exists() {
        // pip keeps a wheel of the same version.
        succeed(Command::new(&python).args(["-m", "pip", "uninstall", "--quiet", "--yes", "ldm"]))?;
    }
    let guide = fs::read_to_string(root.join(GUIDE)).with_context(|| format!("cannot read {GUIDE}"))?;
    let install = first_commands(&guide).with_context(|| format!("{GUIDE}: expected commands, got none"))?;
    succeed(Command::new("bash").args(["-e", "-c", install]).current_dir(&folder))?;
    let tests = root.join("crates/ldm-python/tests");
    let mut pip = Command::new(&python);
    pip.args(["-m", "pip", "install", "--quiet", "--disable-pip-version-check", "-r"]);
    succeed(pip.arg(tests.join("requirements.txt")))?;
    let mut pytest = Command::new(&python);
    // The installed package, not that of the checkout.
    pytest.args(["-I", "-m", "pytest", "-q", "-p", "no:cacheprovider"]).arg(&tests).current_dir(&folder);
    succeed(pytest.env("PYTHONDONTWRITEBYTECODE", "1"))
}

fn wheels(folder: &Path) -> Result<Vec<PathBuf>> {
    let entries = fs::read_dir(folder).with_context(|| folder.display().to_string())?;
    let paths = entries.flatten().map(|entry| entry.path());
    Ok(paths.filter(|path| path.extension().is_some_and(|extension| extension == "whl")).collect())
}

/// The first block of shell commands of a page.
fn first_commands(page: &str) -> Option<&str> {
    Some(page.split_once("```sh\n")?.1.split_once("```")?.0)
}

fn succeed(command: &mut Command) -> Result<()> {
    let name = command.get_program().to_owned();
    let status = command.status().with_context(|| format!("{} does not start", name.display()))?;
    ensure!(status.success(), "{}: {status}", name.display());
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_guide_begins_with_the_installation() {
        let guide =
            fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("../..").join(GUIDE)).unwrap();
        let install = first_commands(&guide).unwrap();
        assert!(install.contains("-m venv venv\n") && install.contains("pip install"), "{install}");
        assert_eq!(first_commands("```python\n1\n```"), None);
    }
}
