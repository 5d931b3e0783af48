//! Atomic writes of files and folders.

use std::io::Write;
use std::path::Path;
use std::time::Duration;

use ldm_core::files::{make_folder, when_idle, write_bytes, write_folder, write_whole};
use ldm_core::{Error, Result};

fn names(folder: &Path) -> Vec<String> {
    let entries = std::fs::read_dir(folder).unwrap();
    entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect()
}

#[test]
fn a_file_is_written_and_replaced() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("a");
    write_bytes(&path, b"one").unwrap();
    write_bytes(&path, b"two").unwrap();
    assert_eq!(std::fs::read(&path).unwrap(), b"two");
    assert_eq!(names(folder.path()), ["a"]);
    #[cfg(unix)]
    {
        use std::os::unix::fs::PermissionsExt;
        assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o644);
    }
}

#[test]
fn an_empty_path_is_an_error() {
    // Only the error case: a test must not write into the checkout.
    let error = write_bytes("", b"").unwrap_err();
    assert!(matches!(error, Error::Io { .. }), "{error}");
}

#[test]
fn a_writer_that_fails_leaves_the_old_file_and_nothing_else() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("a");
    write_bytes(&path, b"old").unwrap();
    let failed: Result<()> = write_whole(&path, |writer| {
        writer.write_all(b"half").map_err(Error::io("a"))?;
        Err(Error::invalid("stopped"))
    });
    assert_eq!(failed.unwrap_err().to_string(), "stopped");
    let panicked = std::panic::catch_unwind(|| {
        write_whole(&path, |writer| {
            writer.write_all(b"half").unwrap();
            panic!("stopped");
        })
    });
    assert!(panicked.is_err());
    assert_eq!(std::fs::read(&path).unwrap(), b"old");
    assert_eq!(names(folder.path()), ["a"]);
}

#[test]
fn a_reader_sees_the_old_file_or_the_new_one() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("a");
    write_bytes(&path, b"old").unwrap();
    write_whole(&path, |writer| {
        writer.write_all(&vec![0; 100_000]).map_err(Error::io(&path))?;
        assert_eq!(std::fs::read(&path).unwrap(), b"old");
        Ok(())
    })
    .unwrap();
    assert_eq!(std::fs::read(&path).unwrap().len(), 100_000);
}

#[test]
fn a_missing_folder_is_named() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("none/a");
    let error = write_bytes(&path, b"").unwrap_err();
    assert!(matches!(&error, Error::Io { path: named, .. } if *named == path), "{error}");
}

/// A writer of a folder may be at any point when the program stops: nothing partial remains.
#[test]
fn stopping_leaves_no_unfinished_folder() {
    let root = tempfile::tempdir().unwrap();
    for pause in (0..400).map(|index| Duration::from_micros(index % 100)) {
        let out = root.path().join("a");
        std::thread::scope(|scope| {
            let writer = scope.spawn(|| {
                write_folder(&out, false, |folder| {
                    for name in ["b", "c", "d"].map(|name| folder.join(name)) {
                        make_folder(&name)?;
                        write_bytes(name.join("e"), b"e")?;
                    }
                    Ok(())
                })
            });
            std::thread::sleep(pause);
            let idle = when_idle();
            let left = names(root.path());
            assert!(left.iter().all(|name| name == "a"), "{left:?}");
            drop(idle);
            // A program would exit here; the writer continues, and never leaves a partial folder.
            let written = writer.join().unwrap();
            assert_eq!(out.exists(), written.is_ok());
            assert!(
                written.is_err() || ["b", "c", "d"].iter().all(|name| out.join(name).join("e").is_file())
            );
        });
        drop(std::fs::remove_dir_all(&out));
    }
}

/// A mounted file system of 64 kB, if the machine permits one.
struct SmallDisk(tempfile::TempDir);

impl SmallDisk {
    fn mount() -> Option<Self> {
        let folder = tempfile::tempdir().unwrap();
        let mut mount = std::process::Command::new("mount");
        mount.args(["-t", "tmpfs", "-o", "size=64k", "tmpfs"]).arg(folder.path());
        let done = mount.stderr(std::process::Stdio::null()).status().is_ok_and(|status| status.success());
        done.then_some(Self(folder))
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        let _ = std::process::Command::new("umount").arg(self.0.path()).status();
    }
}

#[test]
fn a_full_disk_leaves_the_old_file_and_nothing_else() {
    let Some(disk) = SmallDisk::mount() else {
        println!("skipped: cannot mount a file system");
        return;
    };
    let path = disk.0.path().join("a");
    write_bytes(&path, b"old").unwrap();
    let error = write_bytes(&path, &vec![1; 1 << 20]).unwrap_err();
    assert!(matches!(error, Error::Io { .. }), "{error}");
    assert_eq!(std::fs::read(&path).unwrap(), b"old");
    assert_eq!(names(disk.0.path()), ["a"]);
}
