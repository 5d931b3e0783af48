//! The tarball: the program with libtorch for the CPU, unpacked anywhere.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, anyhow, ensure};

use super::libraries::LibraryClosure;
use super::metadata::SourcePackage;
use super::{archive, build, launcher, licenses, metadata, packages_folder, sbom, sha256};
use crate::checkout::Checkout;
use crate::libtorch::{Libtorch, Variant};

/// Builds the program and packs it; returns the path of the archive.
///
/// # Errors
/// When the build fails, libtorch is not the one for the CPU, or a file cannot be written.
pub(crate) fn make(checkout: &Checkout) -> Result<PathBuf> {
    let libtorch = checkout.users_libtorch().unwrap_or_else(|| checkout.libtorch()).canonicalize()?;
    let found = Libtorch::read(&libtorch).map_err(|why| anyhow!("{} {why}", libtorch.display()))?;
    ensure!(
        found.set == Variant::Cpu,
        "{}: expected libtorch for the CPU, got the one for CUDA; try `cargo xtask setup --cpu`",
        libtorch.display()
    );
    let program = build::program(checkout)?;
    let closure = LibraryClosure::of(&program, &libtorch.join("lib"))?;
    let packages = metadata::packages(checkout.root())?;
    let version = metadata::version(&packages)?;
    let folder = packages_folder(checkout)?.join(format!("ldm-{version}-linux-x86_64"));
    if folder.exists() {
        fs::remove_dir_all(&folder).with_context(|| folder.display().to_string())?;
    }
    let tree = PackageTree { folder };
    tree.copy(&program, "libexec/ldm")?;
    for (name, path) in &closure.libraries {
        tree.copy(path, &format!("lib/{name}"))?;
    }
    tree.write("bin/ldm", &launcher::script(&closure, &tree.folder.join("lib"))?)?;
    make_executable(&tree.folder.join("bin/ldm"))?;
    tree.write_documents(checkout.root(), &packages, &libtorch, &closure)?;
    tree.write_sbom(version, &packages, &closure)?;
    tree.write_completions()?;
    let archive = tree.folder.with_added_extension("tar.gz");
    archive::pack(&tree.folder, &archive, build::seconds(checkout)?)?;
    tree.report(&archive, &closure)?;
    Ok(archive)
}

/// The folder that is packed.
struct PackageTree {
    folder: PathBuf,
}

impl PackageTree {
    /// Returns the path of a new file, in a folder that exists.
    fn place(&self, name: &str) -> Result<PathBuf> {
        let path = self.folder.join(name);
        let folder = path.parent().context("a file is in a folder")?;
        fs::create_dir_all(folder).with_context(|| folder.display().to_string())?;
        Ok(path)
    }

    fn copy(&self, from: &Path, name: &str) -> Result<()> {
        fs::copy(from, self.place(name)?).with_context(|| from.display().to_string())?;
        Ok(())
    }

    fn write(&self, name: &str, text: &str) -> Result<()> {
        fs::write(self.place(name)?, text).with_context(|| name.to_owned())
    }

    /// The configs, the licenses and the README.
    fn write_documents(
        &self,
        root: &Path,
        packages: &[SourcePackage],
        libtorch: &Path,
        closure: &LibraryClosure,
    ) -> Result<()> {
        let configs = root.join("configs");
        for path in archive::sorted(&configs)?.iter().filter(|path| path.is_file()) {
            self.copy(path, &format!("share/ldm/configs/{}", path.strip_prefix(&configs)?.display()))?;
        }
        self.copy(&root.join("LICENSE"), "share/doc/ldm/LICENSE")?;
        self.write("share/doc/ldm/licenses-of-crates.txt", &licenses::of_crates(packages)?)?;
        for (wheel, path) in licenses::of_libtorch(libtorch)? {
            let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
            self.copy(&path, &format!("share/doc/ldm/{wheel}/{name}"))?;
        }
        let readme = include_str!("README.txt").replace("@GLIBC@", &closure.glibc.to_string());
        self.write("README.txt", &readme)
    }

    fn write_sbom(&self, version: &str, packages: &[SourcePackage], closure: &LibraryClosure) -> Result<()> {
        let hashes: Vec<sbom::LibraryHash> = closure
            .libraries
            .iter()
            .map(|(name, path)| Ok((name.clone(), sha256(path)?)))
            .collect::<Result<_>>()?;
        let document = sbom::document(version, packages, &hashes);
        self.write("share/doc/ldm/sbom.cdx.json", &format!("{document:#}\n"))
    }

    /// The completions and manual pages, which the packed program writes itself.
    fn write_completions(&self) -> Result<()> {
        let run = |args: &[&str]| {
            let output = Command::new(self.folder.join("bin/ldm")).args(args).output()?;
            ensure!(
                output.status.success(),
                "the packed ldm {}: {}",
                args.join(" "),
                String::from_utf8_lossy(&output.stderr).trim()
            );
            Ok(String::from_utf8(output.stdout)?)
        };
        for (shell, name) in [
            ("bash", "share/bash-completion/completions/ldm"),
            ("zsh", "share/zsh/site-functions/_ldm"),
            ("fish", "share/fish/vendor_completions.d/ldm.fish"),
        ] {
            self.write(name, &run(&["completions", shell])?)?;
        }
        let pages = self.place("share/man/man1/ldm.1")?.with_file_name("");
        run(&["man", "--out", pages.to_str().context("the checkout's path is UTF-8")?])?;
        Ok(())
    }

    /// Prints the sizes and the requirements.
    fn report(&self, archive: &Path, closure: &LibraryClosure) -> Result<()> {
        let megabytes = |path: &Path| Ok::<_, anyhow::Error>(fs::metadata(path)?.len() as f64 / 1e6);
        let mut unpacked = 0.;
        for path in archive::sorted(&self.folder)?.iter().filter(|path| path.is_file()) {
            unpacked += megabytes(path)?;
        }
        println!("{}", archive.display());
        println!("archive    {:.1} MB, {unpacked:.1} MB unpacked", megabytes(archive)?);
        println!("program    {:.1} MB", megabytes(&self.folder.join("libexec/ldm"))?);
        for name in closure.libraries.keys() {
            println!("library    {name} {:.1} MB", megabytes(&self.folder.join("lib").join(name))?);
        }
        println!("needs      glibc {}, GLIBCXX_{}", closure.glibc, closure.libstdcxx);
        println!("sha256     {}", sha256(archive)?);
        Ok(())
    }
}

fn make_executable(path: &Path) -> Result<()> {
    fs::set_permissions(path, fs::Permissions::from_mode(0o755)).with_context(|| path.display().to_string())
}
