//! A fake machine: a PATH of scripts, a cache and a checkout.

use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use tempfile::TempDir;

/// A `python3` whose pip installs a tiny torch: empty libraries for CPU and CUDA.
pub(crate) const PIP_THAT_WORKS: &str = r#"
echo "$@" >> "$FAKE/pip-calls"
while [ $# -gt 0 ]; do
    [ "$1" = --target ] && target=$2
    [ "$1" = -r ] && cp "$2" "$FAKE/required"
    shift
done
mkdir -p "$target/torch/lib" "$target/torch/include"
echo "__version__ = '2.11.0+cu130'" > "$target/torch/version.py"
cd "$target/torch/lib"
echo | cc -shared -x c - -o libtorch_cpu.so -Wl,-soname,libtorch_cpu.so
for name in libtorch libc10 libtorch_cuda libtorch_cuda_linalg libc10_cuda libtorch_nvshmem libcaffe2_nvrtc; do
    cp libtorch_cpu.so $name.so
done
"#;

/// As above, but it hangs and can be interrupted.
pub(crate) const PIP_THAT_HANGS: &str = r#"
while [ $# -gt 0 ]; do [ "$1" = --target ] && target=$2; shift; done
mkdir -p "$target/torch/lib"
exec sleep 60
"#;

pub(crate) struct FakeMachine(TempDir);

impl FakeMachine {
    /// Creates a machine with a compiler, a disk, shell tools, and a python3 whose pip is a script.
    pub(crate) fn new(pip: &str) -> Self {
        let machine = Self(tempfile::tempdir().unwrap());
        for folder in ["bin", "cache", "checkout/crates/xtask"] {
            fs::create_dir_all(machine.path(folder)).unwrap();
        }
        for tool in ["cc", "c++", "as", "ld", "mkdir", "cp", "sleep", "rm"] {
            symlink(real(tool), machine.path("bin").join(tool)).unwrap();
        }
        machine.tool("df", "echo Avail; echo 50000000000");
        machine.python(pip);
        machine
    }

    pub(crate) fn python(&self, pip: &str) {
        let answers = "[ \"$1\" = -c ] && exit 0\n[ \"$4\" = --version ] && exit 0\n";
        self.tool("python3", &format!("{answers}{pip}"));
    }

    pub(crate) fn tool(&self, name: &str, script: &str) {
        let path = self.path("bin").join(name);
        let _ = fs::remove_file(&path);
        fs::write(&path, format!("#!/bin/sh\n{script}\n")).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
    }

    pub(crate) fn without(&self, tool: &str) {
        fs::remove_file(self.path("bin").join(tool)).unwrap();
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    pub(crate) fn link(&self) -> PathBuf {
        self.path("checkout/.libtorch")
    }

    pub(crate) fn set(&self, name: &str) -> PathBuf {
        self.path(&format!("cache/ldm/libtorch-2.11.0-{name}"))
    }

    /// Creates a libtorch of the user.
    pub(crate) fn libtorch(&self, folder: &str, version: &str) -> PathBuf {
        let path = self.path(folder);
        fs::create_dir_all(path.join("lib")).unwrap();
        fs::create_dir_all(path.join("include")).unwrap();
        for name in ["libtorch", "libtorch_cpu", "libc10"] {
            fs::write(path.join(format!("lib/{name}.so")), "").unwrap();
        }
        fs::write(path.join("build-version"), version).unwrap();
        path
    }

    pub(crate) fn xtask(&self, args: &str) -> Command {
        let mut xtask = Command::new(env!("CARGO_BIN_EXE_xtask"));
        xtask.args(args.split_whitespace()).env_clear();
        xtask.env("PATH", self.path("bin")).env("XDG_CACHE_HOME", self.path("cache"));
        xtask.env("CARGO_MANIFEST_DIR", self.path("checkout/crates/xtask")).env("FAKE", self.0.path());
        xtask.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        xtask
    }

    /// The names in the cache.
    pub(crate) fn cached(&self) -> Vec<String> {
        let Ok(entries) = fs::read_dir(self.path("cache/ldm")) else { return vec![] };
        let mut names: Vec<_> =
            entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
        names.sort();
        names
    }

    #[track_caller]
    pub(crate) fn succeeds(&self, args: &str) -> String {
        succeeded(self.xtask(args).output().unwrap())
    }

    /// Runs a command that must fail with one line, and returns it.
    #[track_caller]
    pub(crate) fn fails(&self, command: &mut Command) -> String {
        let result = command.output().unwrap();
        let output = String::from_utf8(result.stderr).unwrap();
        assert_eq!(result.status.code(), Some(1), "{output}");
        let errors: Vec<_> = output.lines().filter(|line| !line.starts_with("installing libtorch")).collect();
        assert_eq!(errors.len(), 1, "not one line: {output}");
        assert!(fs::read_link(self.link()).is_err(), "a failed setup made a link");
        assert!(!self.cached().iter().any(|name| name.contains(".part-")), "{:?}", self.cached());
        errors[0].strip_prefix("error: ").unwrap().to_owned()
    }
}

#[track_caller]
pub(crate) fn succeeded(result: Output) -> String {
    let output = String::from_utf8(result.stderr).unwrap();
    assert!(result.status.success(), "{output}");
    output
}

fn real(tool: &str) -> PathBuf {
    let path = std::env::var_os("PATH").unwrap();
    let found = std::env::split_paths(&path).map(|folder| folder.join(tool)).find(|path| path.exists());
    found.unwrap_or_else(|| panic!("this machine has no {tool}"))
}

/// Waits until the condition holds.
#[track_caller]
pub(crate) fn until(what: &str, mut holds: impl FnMut() -> bool) {
    let start = std::time::Instant::now();
    while !holds() {
        assert!(start.elapsed().as_secs() < 20, "timeout: {what}");
        std::thread::yield_now();
    }
}

pub(crate) fn text(path: &Path) -> String {
    fs::read_to_string(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}
