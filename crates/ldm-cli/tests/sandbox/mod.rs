//! A folder to work in and the program in it, as a person has them.

#![allow(dead_code, reason = "no program of tests needs all of it")]

use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

/// A folder to work in, and beside it the place of `ldm weights`.
pub(crate) struct Sandbox(tempfile::TempDir);

impl Sandbox {
    /// With these files, by their names.
    pub(crate) fn new(files: &[(&str, &str)]) -> Self {
        let sandbox = Self(tempfile::tempdir().unwrap());
        std::fs::create_dir_all(sandbox.work()).unwrap();
        for (name, text) in files {
            std::fs::write(sandbox.path(name), text).unwrap();
        }
        sandbox
    }

    /// The folder.
    pub(crate) fn work(&self) -> PathBuf {
        self.0.path().join("work")
    }

    /// Of a file in the folder.
    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.work().join(name)
    }

    /// Of a file that `ldm weights get` would put there.
    pub(crate) fn weights(&self, name: &str) -> PathBuf {
        self.0.path().join("weights").join(name)
    }

    /// `ldm` in the folder, to be started.
    pub(crate) fn command(&self, args: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_ldm"));
        command.args(args).current_dir(self.work()).env("LDM_WEIGHTS", self.weights(""));
        command.stdin(Stdio::null());
        command
    }

    /// What came of it.
    pub(crate) fn run(&self, args: &[&str]) -> Output {
        self.command(args).output().unwrap()
    }

    /// stdout and stderr of a command that succeeds.
    #[track_caller]
    pub(crate) fn said(&self, args: &[&str]) -> (String, String) {
        let output = self.run(args);
        assert!(output.status.success(), "{args:?}: {}", text(&output.stderr));
        (text(&output.stdout), text(&output.stderr))
    }

    /// stdout of a command that succeeds.
    #[track_caller]
    pub(crate) fn done(&self, args: &[&str]) -> String {
        self.said(args).0
    }

    /// The command fails with `code`, says `expected` on one line, and leaves nothing behind.
    #[track_caller]
    pub(crate) fn fails(&self, args: &[&str], code: i32, expected: &str) {
        let before = listing(&self.work());
        let output = self.run(args);
        let error = text(&output.stderr);
        assert_eq!(output.status.code(), Some(code), "{args:?}: {error}");
        assert!(error.lines().any(|line| line.contains(expected)), "{args:?}: {error}");
        assert!(!error.contains("panicked") && !error.contains("RUST_BACKTRACE"), "{args:?}: {error}");
        assert_eq!(listing(&self.work()), before, "{args:?} left something behind");
    }

    /// The values of an image.
    pub(crate) fn pixels(&self, name: &str) -> Vec<u8> {
        ldm_core::image::read(self.path(name)).unwrap().into_raw()
    }
}

/// What a program wrote.
pub(crate) fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

/// Every file and folder below one, sorted.
pub(crate) fn listing(folder: &Path) -> Vec<PathBuf> {
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
