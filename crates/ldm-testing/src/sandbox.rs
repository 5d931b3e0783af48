//! A temporary working directory and the program under test.

use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

/// A temporary working directory, the program to run in it, and next to it the cache of `ldm weights`.
#[derive(Debug)]
pub struct Sandbox {
    folder: tempfile::TempDir,
    program: PathBuf,
}

impl Sandbox {
    /// A new directory with these files, `(name, text)`; `program` is usually `env!("CARGO_BIN_EXE_ldm")`.
    pub fn new(program: impl Into<PathBuf>, files: &[(&str, &str)]) -> Self {
        let sandbox = Self { folder: tempfile::tempdir().unwrap(), program: program.into() };
        std::fs::create_dir_all(sandbox.work()).unwrap();
        for (name, text) in files {
            std::fs::write(sandbox.path(name), text).unwrap();
        }
        sandbox
    }

    /// The working directory.
    pub fn work(&self) -> PathBuf {
        self.folder.path().join("work")
    }

    /// The path of a file in the working directory.
    pub fn path(&self, name: &str) -> PathBuf {
        self.work().join(name)
    }

    /// The path at which `ldm weights get` installs a file.
    pub fn weights(&self, name: &str) -> PathBuf {
        self.folder.path().join("weights").join(name)
    }

    /// The program with these arguments, not started yet.
    pub fn command(&self, args: &[&str]) -> Command {
        let mut command = Command::new(&self.program);
        command
            .args(args)
            .current_dir(self.work())
            .env("LDM_WEIGHTS", self.weights(""))
            .env_remove("LDM_DATA");
        command.stdin(Stdio::null());
        command
    }

    /// Runs the program to its end.
    pub fn run(&self, args: &[&str]) -> Output {
        self.command(args).output().unwrap()
    }

    /// stdout and stderr of a command that must succeed.
    #[track_caller]
    pub fn output(&self, args: &[&str]) -> (String, String) {
        let output = self.run(args);
        assert!(output.status.success(), "{args:?}: {}", text(&output.stderr));
        (text(&output.stdout), text(&output.stderr))
    }

    /// stdout of a command that must succeed.
    #[track_caller]
    pub fn ok(&self, args: &[&str]) -> String {
        self.output(args).0
    }

    /// Checks that the command fails with `code`, has `expected` in a line of stderr, and leaves no file behind.
    #[track_caller]
    pub fn err(&self, args: &[&str], code: i32, expected: &str) {
        let before = listing(&self.work());
        let output = self.run(args);
        let error = text(&output.stderr);
        assert_eq!(output.status.code(), Some(code), "{args:?}: {error}");
        assert!(error.lines().any(|line| line.contains(expected)), "{args:?}: {error}");
        assert!(!error.contains("panicked") && !error.contains("RUST_BACKTRACE"), "{args:?}: {error}");
        assert_eq!(listing(&self.work()), before, "{args:?} left something behind");
    }

    /// The RGB bytes of an image.
    pub fn pixels(&self, name: &str) -> Vec<u8> {
        ldm_core::image::read(self.path(name)).unwrap().into_raw()
    }
}

/// Output as text.
pub fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

/// Every file and folder below `folder`, sorted.
pub fn listing(folder: &Path) -> Vec<PathBuf> {
    let (mut found, mut folders) = (Vec::new(), vec![folder.to_path_buf()]);
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path.clone());
            }
            found.push(path);
        }
    }
    found.sort();
    found
}
