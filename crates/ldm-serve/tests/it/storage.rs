//! Disks that are full, and files that a power cut left incomplete.

use std::io::Write;
use std::path::Path;
use std::process::Command;

use serde_json::{Value, json};
use tempfile::TempDir;

use crate::server::{TestServer, options};

/// A file system of a few megabytes, unmounted when it is dropped.
struct SmallDisk(TempDir);

impl SmallDisk {
    /// None where this user may not mount one.
    fn mount() -> Option<Self> {
        let folder = tempfile::tempdir().unwrap();
        let mounted = Command::new("mount")
            .args(["-t", "tmpfs", "-o", "size=4m", "tmpfs"])
            .arg(folder.path())
            .output()
            .is_ok_and(|output| output.status.success());
        mounted.then_some(Self(folder))
    }

    fn path(&self) -> &Path {
        self.0.path()
    }

    /// Takes the room that is left.
    fn fill(&self) {
        let mut file = std::fs::File::create(self.path().join("fill")).unwrap();
        while file.write_all(&[1; 4096]).is_ok() {}
    }

    fn empty(&self) {
        std::fs::remove_file(self.path().join("fill")).unwrap();
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("-l").arg(self.path()).status();
    }
}

fn submit(server: &TestServer, steps: usize, seed: u64) -> (u16, Value) {
    server.post("/v1/jobs", &json!({"prompt": "fire", "steps": steps, "seed": seed}))
}

fn id(job: &Value) -> String {
    job["id"].as_str().unwrap_or_else(|| panic!("{job}")).to_owned()
}

#[test]
fn a_full_disk_fails_the_job_and_not_the_server() {
    let Some(disk) = SmallDisk::mount() else {
        return eprintln!("skipped: this user cannot mount a tmpfs");
    };
    let server = TestServer::start(options(disk.path()));
    let first = id(&server.job(&json!({"prompt": "fire", "steps": 1})));
    let (_, running) = submit(&server, 400, 1);
    let running = id(&running);
    while server.get(&format!("/v1/jobs/{running}"))["progress"]["step"] == 0 {
        std::thread::sleep(std::time::Duration::from_millis(5));
    }
    disk.fill();
    let mut refused = 0;
    let mut accepted = vec![running];
    for seed in 0..200 {
        let (status, answer) = submit(&server, 1, seed);
        if status == 202 {
            accepted.push(id(&answer));
            continue;
        }
        let error = (status, &answer["error"]["code"]);
        assert_eq!(error, (507, &json!("storage")), "{answer}");
        let message = answer["error"]["message"].as_str().unwrap();
        assert!(message.starts_with("the disk of the server is full"), "{message}");
        refused += 1;
    }
    assert!(refused > 0);
    for id in &accepted {
        let end = server.end(id);
        assert_eq!((&end["state"], &end["error"]["kind"]), (&json!("failed"), &json!("storage")), "{end}");
    }
    assert_eq!(server.send("GET", "/health", None).0, 200);
    server.bytes(&format!("/v1/jobs/{first}/images/0"));
    // A job can be removed although the journal has no room to say so.
    assert_eq!(server.send("DELETE", &format!("/v1/jobs/{first}"), None).0, 204);
    disk.empty();
    assert_eq!(server.job(&json!({"prompt": "fire", "steps": 1}))["state"], "done");
    // The ends are in the journal by now: none runs at the next start.
    drop(server);
    let server = TestServer::start(options(disk.path()));
    assert_eq!(server.send("GET", &format!("/v1/jobs/{first}"), None).0, 404);
    for id in &accepted {
        assert_eq!(server.get(&format!("/v1/jobs/{id}"))["state"], "failed");
    }
}

#[test]
fn results_that_cannot_be_written_fail_their_job() {
    let folder = tempfile::tempdir().unwrap();
    let server = TestServer::start(options(folder.path()));
    let (_, job) = submit(&server, 200, 1);
    // A file where the folder of the results should be.
    std::fs::write(folder.path().join("jobs").join(id(&job)), "").unwrap();
    let end = server.end(&id(&job));
    assert_eq!(end["state"], "failed", "{end}");
    assert_eq!(server.job(&json!({"prompt": "fire", "steps": 1}))["state"], "done");
}

#[test]
fn images_that_a_power_cut_left_incomplete_are_sampled_again() {
    let folder = tempfile::tempdir().unwrap();
    let server = TestServer::start(options(folder.path()));
    let [cut, removed] =
        [1, 2].map(|seed| id(&server.job(&json!({"prompt": "fire", "steps": 2, "seed": seed}))));
    let png = server.bytes(&format!("/v1/jobs/{cut}/images/0"));
    drop(server);
    let jobs = folder.path().join("jobs");
    std::fs::write(jobs.join(&cut).join("00000.png"), &png[..100]).unwrap();
    std::fs::remove_dir_all(jobs.join(&removed)).unwrap();
    let server = TestServer::start(options(folder.path()));
    assert_eq!(server.end(&cut)["state"], "done");
    assert!(server.bytes(&format!("/v1/jobs/{cut}/images/0")) == png);
    // A folder that a person removed is not filled again.
    assert_eq!(server.end(&removed)["state"], "done");
    assert_eq!(server.send("GET", &format!("/v1/jobs/{removed}/images/0"), None).0, 404);
}
