//! `cargo xtask kernels`: the kernels for CUDA, compiled by NVRTC on any machine.

use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, Result, bail, ensure};
use sha2::{Digest, Sha256};

use crate::checkout::Checkout;

/// The sources, from the root of the checkout.
const SOURCES: &str = "crates/ldm-libtorch/kernels";
/// The folder of the compiled kernels in that of the sources, and the list of hashes in it.
const COMPILED: &str = "compiled";
const MANIFEST: &str = "manifest.txt";
/// The wheel of NVRTC in the list of libtorch's wheels.
const WHEEL: &str = "nvidia-cuda-nvrtc==";

/// Compiles every kernel and writes the manifest.
pub(crate) fn compile(checkout: &Checkout) -> Result<()> {
    let sources = checkout.root().join(SOURCES);
    let nvrtc = match nvrtc(checkout) {
        Some(folder) => folder,
        None => install(checkout)?,
    };
    let out = sources.join(COMPILED);
    fs::create_dir_all(&out).with_context(|| format!("cannot create {}", out.display()))?;
    for old in files(&out)? {
        fs::remove_file(&old).with_context(|| format!("cannot remove {}", old.display()))?;
    }
    let log = run(&sources, &nvrtc, &out, &[])?;
    print!("{log}");
    let version = log.lines().next().unwrap_or_default();
    fs::write(out.join(MANIFEST), manifest(&sources, version)?).context("cannot write the manifest")
}

/// Returns the folder of NVRTC: `LDM_NVRTC`, that of libtorch for CUDA, or that of an earlier [`install`].
fn nvrtc(checkout: &Checkout) -> Option<PathBuf> {
    let own = std::env::var_os("LDM_NVRTC").map(PathBuf::from);
    let wheels = [Some(checkout.link()), installed(checkout).ok()];
    let wheels = wheels.into_iter().flatten().map(|folder| folder.join("nvidia/cu13/lib"));
    own.into_iter().chain(wheels).find(|folder| folder.join("libnvrtc.so.13").exists())
}

fn installed(checkout: &Checkout) -> Result<PathBuf> {
    Ok(checkout.target()?.join("nvrtc"))
}

/// Installs NVRTC's wheel alone, with the hash of `libtorch-cuda.txt`.
fn install(checkout: &Checkout) -> Result<PathBuf> {
    let all = include_str!("../libtorch-cuda.txt");
    let mut wheel = String::new();
    for line in all.lines().skip_while(|line| !line.starts_with(WHEEL)) {
        writeln!(wheel, "{line}")?;
        if !line.ends_with('\\') {
            break;
        }
    }
    let target = installed(checkout)?;
    fs::create_dir_all(&target).with_context(|| format!("cannot create {}", target.display()))?;
    let list = target.join("wheel.txt");
    fs::write(&list, wheel).with_context(|| format!("cannot write {}", list.display()))?;
    let status = Command::new("python3")
        .args(["-I", "-m", "pip", "install", "--no-compile", "--no-input", "--disable-pip-version-check"])
        .args(["--only-binary", ":all:", "--no-deps", "--require-hashes", "--target"])
        .arg(&target)
        .arg("-r")
        .arg(&list)
        .env("PIP_USER", "0")
        .status()
        .context("python3 does not start")?;
    ensure!(
        status.success(),
        "pip: cannot install {WHEEL}; try setting LDM_NVRTC to the folder of libnvrtc.so.13"
    );
    nvrtc(checkout).context("the wheel of NVRTC has no libnvrtc.so.13")
}

/// Runs `compile.py` and returns its output.
fn run(sources: &Path, nvrtc: &Path, out: &Path, architectures: &[&str]) -> Result<String> {
    let output = Command::new("python3")
        .arg("-I")
        .arg(sources.join("compile.py"))
        .args([nvrtc, out])
        .args(architectures)
        .stdin(Stdio::null())
        .output()
        .context("python3 does not start")?;
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    if !output.status.success() {
        bail!("compile.py: {}{}", text(&output.stdout), text(&output.stderr));
    }
    Ok(text(&output.stdout))
}

/// Returns the hashes of what is compiled and of what that gave, as sha256sum prints them, under the version of NVRTC.
fn manifest(sources: &Path, version: &str) -> Result<String> {
    let of_device = |path: &PathBuf| {
        let end = path.extension().unwrap_or_default();
        (end == "cu" || end == "h" || end == "py")
            && path.file_name().is_some_and(|name| name != "emulator.h")
    };
    let inputs = files(sources)?.into_iter().filter(of_device);
    let outputs = files(&sources.join(COMPILED))?.into_iter().filter(|path| !path.ends_with(MANIFEST));
    let mut text = format!("# {version}\n");
    for path in inputs.chain(outputs) {
        let bytes = fs::read(&path).with_context(|| format!("cannot read {}", path.display()))?;
        let name = path.strip_prefix(sources).context("a file of the folder")?;
        writeln!(text, "{:x}  {}", Sha256::digest(bytes), name.display())?;
    }
    Ok(text)
}

/// Returns the files of a folder, sorted.
fn files(folder: &Path) -> Result<Vec<PathBuf>> {
    let entries = fs::read_dir(folder).with_context(|| format!("cannot read {}", folder.display()))?;
    let mut files: Vec<PathBuf> =
        entries.flatten().map(|entry| entry.path()).filter(|path| path.is_file()).collect();
    files.sort();
    Ok(files)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sources() -> PathBuf {
        Checkout::find().unwrap().root().join(SOURCES)
    }

    fn committed() -> String {
        fs::read_to_string(sources().join(COMPILED).join(MANIFEST)).unwrap()
    }

    #[test]
    fn the_compiled_kernels_are_those_of_the_sources() {
        let committed = committed();
        let version = committed.lines().next().unwrap().trim_start_matches("# ");
        assert_eq!(manifest(&sources(), version).unwrap(), committed, "run `cargo xtask kernels`");
        let count = |end: &str| committed.lines().filter(|line| line.ends_with(end)).count();
        assert!(count(".cu") > 0 && count(".cu") == count(".ptx") && count(".cu") == count(".sm_90.cubin"));
    }

    /// With NVRTC (`LDM_NVRTC`, libtorch for CUDA, or after `cargo xtask kernels`).
    #[test]
    fn compiling_again_gives_the_committed_bytes() {
        let Some(nvrtc) = nvrtc(&Checkout::find().unwrap()) else {
            eprintln!("skipped: no NVRTC; try LDM_NVRTC");
            return;
        };
        let out = tempfile::tempdir().unwrap();
        let log = run(&sources(), &nvrtc, out.path(), &[]).unwrap();
        assert_eq!(
            format!("# {}", log.lines().next().unwrap()),
            committed().lines().next().unwrap(),
            "NVRTC's version"
        );
        for path in files(out.path()).unwrap() {
            let name = path.file_name().unwrap();
            let same = fs::read(&path).unwrap() == fs::read(sources().join(COMPILED).join(name)).unwrap();
            assert!(same, "{}: run `cargo xtask kernels`", name.display());
        }
        // Spilled registers and what an architecture refuses are errors.
        run(&sources(), &nvrtc, out.path(), &["sm_80", "sm_86", "sm_90", "sm_100", "sm_120"]).unwrap();
    }

    /// Loads as wide as they are meant: 16 bytes of the map in one instruction.
    #[test]
    fn maps_are_read_and_written_16_bytes_at_once() {
        for name in ["group_norm", "group_norm_backward", "bias_add", "geglu"] {
            let ptx = fs::read_to_string(sources().join(COMPILED).join(format!("{name}.ptx"))).unwrap();
            for body in ptx.split(".visible .entry ").skip(1) {
                let kernel = body.split('(').next().unwrap();
                let wide = ["_f32_x4", "_bf16_x8", "_f16_x8"].iter().any(|end| kernel.ends_with(end));
                let has = |access: &str| {
                    ["u32", "b32", "f32"].iter().any(|kind| body.contains(&format!("{access}.v4.{kind}")))
                };
                let writes = !(kernel.contains("moments") || kernel.contains("sums"));
                assert_eq!(has("ld.global.nc"), wide, "{kernel}");
                assert_eq!(has("st.global"), wide && writes, "{kernel}");
            }
        }
    }
}
