//! The tarball in a root folder of Debian packages alone: one line from the archive to an image, and the errors.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::time::Instant;

use anyhow::{Context, Result, bail, ensure};
use flate2::read::GzDecoder;
use tar::Archive;

use super::packages_folder;
use crate::checkout::Checkout;

/// Unpacks the archive under `root/opt` and runs it there, without network; then damages it, each time in another way.
///
/// # Errors
/// When there is no archive, this process may not `chroot`, or a command does not print what it should.
pub(crate) fn run(checkout: &Checkout, root: &Path) -> Result<()> {
    ensure!(
        root.join("bin/sh").exists(),
        "{}: expected a root folder with /bin/sh, got none; try `mmdebstrap --variant=minbase bookworm {0}`",
        root.display()
    );
    let packages = packages_folder(checkout)?;
    let is_archive = |path: &PathBuf| path.to_string_lossy().ends_with("-linux-x86_64.tar.gz");
    let archive =
        fs::read_dir(&packages)?.flatten().map(|entry| entry.path()).find(is_archive).with_context(|| {
            format!("{}: expected an archive, got none; try `dist --tarball` first", packages.display())
        })?;
    let name = archive.file_name().unwrap_or_default().to_string_lossy().replace(".tar.gz", "");
    let place = root.join("opt").join(&name);
    if place.exists() {
        fs::remove_dir_all(&place)?;
    }
    let start = Instant::now();
    Archive::new(GzDecoder::new(File::open(&archive)?)).unpack(root.join("opt"))?;
    println!("unpacked in {:.1} s", start.elapsed().as_secs_f64());
    let check = RootCheck { root, home: format!("/opt/{name}"), place };
    check.works()?;
    check.explains()?;
    check.installs(&packages)?;
    fs::remove_dir_all(&check.place)?;
    Ok(())
}

/// A root folder with an unpacked archive.
struct RootCheck<'a> {
    root: &'a Path,
    /// The folder of the archive inside the root, and from outside.
    home: String,
    place: PathBuf,
}

impl RootCheck<'_> {
    /// Runs a script of the shell in the root, with its own empty network and a new environment.
    fn shell(&self, script: &str) -> Result<Output> {
        let mut command = Command::new("unshare");
        command.args(["--map-root-user", "--net", "--mount", "--pid", "--fork", "--mount-proc"]);
        command.arg(format!("--root={}", self.root.display())).args(["/bin/sh", "-c", script]);
        command.env_clear().env("PATH", "/usr/local/bin:/usr/bin:/bin").env("HOME", "/srv").current_dir("/");
        // As for the tests: threads that spin beside another program would wait for minutes.
        command.env("GOMP_SPINCOUNT", "1000").env("LDM", format!("{}/bin/ldm", self.home));
        command.output().context("unshare (util-linux) does not start")
    }

    /// Runs a script that must succeed; prints and returns its output.
    fn ok(&self, script: &str) -> Result<String> {
        let start = Instant::now();
        let output = self.shell(script)?;
        let (stdout, stderr) = (text(&output.stdout), text(&output.stderr));
        ensure!(output.status.success(), "{script}: {}\n{stdout}{stderr}", output.status);
        println!("$ {script}    # {:.1} s\n{}", start.elapsed().as_secs_f64(), stdout.trim_end());
        Ok(stdout)
    }

    /// Runs a script that must fail with one line on stderr, which contains `expected`.
    fn fails(&self, script: &str, expected: &str) -> Result<()> {
        let output = self.shell(script)?;
        let stderr = text(&output.stderr);
        ensure!(
            output.status.code() == Some(1) && stderr.lines().count() == 1 && stderr.contains(expected),
            "{script}: expected one line with {expected:?}, got {}\n{stderr}",
            output.status
        );
        println!("$ {script}\n{}", stderr.trim_end());
        Ok(())
    }

    fn works(&self) -> Result<()> {
        let tools =
            self.ok("for tool in cargo rustc gcc cc c++ python3 pip; do command -v $tool; done; ls /opt")?;
        ensure!(tools.lines().count() == 1, "the root: expected no compiler and no Python, got {tools}");
        self.ok("$LDM txt2img 'red heart' --out /srv/first --force")?;
        ensure!(self.root.join("srv/first/00000.png").exists(), "txt2img: expected an image, got none");
        self.ok("$LDM --version --verbose")?;
        self.ok("$LDM self-check")?;
        // The libraries of the archive precede those of LD_LIBRARY_PATH, and a link finds them too.
        self.ok(
            "mkdir -p /srv/wrong && echo broken > /srv/wrong/libgomp.so.1 && cp /srv/wrong/libgomp.so.1 \
                 /srv/wrong/libtorch_cpu.so && LD_LIBRARY_PATH=/srv/wrong $LDM --version",
        )?;
        self.ok("ln -sf $LDM /srv/ldm && cd /srv && ./ldm --version")?;
        Ok(())
    }

    fn explains(&self) -> Result<()> {
        let lib = self.place.join("lib");
        self.damaged(
            &lib.join("libgomp.so.1"),
            |path| Ok(fs::remove_file(path)?),
            "libgomp.so.1: expected a library of libtorch, got none",
        )?;
        let shorten = |path: &Path| Ok(fs::write(path, "another")?);
        self.damaged(
            &lib.join("libtorch_cpu.so"),
            shorten,
            "libtorch_cpu.so: expected that of libtorch 2.11.0, got another",
        )?;
        // A program that needs a glibc of the future.
        let future = |path: &Path| replace(path, b"GLIBC_2.", b"GLIBC_9.");
        self.damaged(&self.place.join("libexec/ldm"), future, "glibc: expected")?;
        let future = |path: &Path| replace(path, b"GLIBCXX_3.", b"GLIBCXX_9.");
        self.damaged(&self.place.join("libexec/ldm"), future, "libstdc++.so.6: expected GLIBCXX_")
    }

    /// Checks the message about a damaged file, and repairs the file.
    fn damaged(&self, file: &Path, damage: impl FnOnce(&Path) -> Result<()>, expected: &str) -> Result<()> {
        let kept = file.with_added_extension("kept");
        fs::rename(file, &kept)?;
        fs::copy(&kept, file)?;
        damage(file).with_context(|| file.display().to_string())?;
        let found = self.fails("$LDM --version", expected);
        fs::rename(&kept, file)?;
        found
    }

    /// Installs a copy of the packages by their script, also one with a changed archive.
    fn installs(&self, packages: &Path) -> Result<()> {
        let folder = self.root.join("srv/packages");
        fs::create_dir_all(&folder)?;
        for entry in fs::read_dir(packages)?.flatten().filter(|entry| entry.path().is_file()) {
            fs::copy(entry.path(), folder.join(entry.file_name()))?;
        }
        let install = "LDM_PACKAGES=/srv/packages sh /srv/packages/install.sh --prefix /opt/prefix";
        self.ok(install)?;
        self.ok("/opt/prefix/bin/ldm txt2img 'red heart' --out /srv/second --force && cmp /srv/first/00000.png /srv/second/00000.png")?;
        // A processor without AVX2.
        let old = "sed 's/ avx2//' /proc/cpuinfo > /srv/cpuinfo && mount --bind /srv/cpuinfo /proc/cpuinfo";
        let found = self.ok(&format!("{old} && {install} 2>&1"))?;
        ensure!(
            found.contains("note: this CPU has no AVX2"),
            "install.sh: expected a note about AVX2, got {found}"
        );
        let archive = format!("/srv/packages/{}.tar.gz", self.home.trim_start_matches("/opt/"));
        self.fails(&format!("echo >> {archive}; {install}"), "expected the sha256 of SHA256SUMS")?;
        fs::remove_dir_all(folder)?;
        fs::remove_dir_all(self.root.join("opt/prefix"))?;
        Ok(())
    }
}

/// Replaces the first occurrence of some bytes in a file by as many others.
fn replace(path: &Path, old: &[u8], new: &[u8]) -> Result<()> {
    let mut bytes = fs::read(path)?;
    let Some(place) = bytes.windows(old.len()).position(|window| window == old) else {
        bail!("expected {}, got none", String::from_utf8_lossy(old));
    };
    bytes[place..place + new.len()].copy_from_slice(new);
    // The copy keeps the mode.
    Ok(fs::write(path, bytes)?)
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}
