//! `ldm serve` as a process: signals, kills under load, the address it prints.

use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::LDM;

/// A server process.
struct Process {
    child: Child,
    url: String,
}

impl Process {
    fn start(data: &Path) -> Self {
        let mut child = Command::new(LDM)
            .args(["serve", "--port", "0", "--threads", "1", "-q", "--data"])
            .arg(data)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut url = String::new();
        BufReader::new(child.stdout.take().unwrap()).read_line(&mut url).unwrap();
        assert!(url.starts_with("http://127.0.0.1:"), "{url:?}");
        Self { child, url: url.trim_end().to_owned() }
    }

    fn get(&self, path: &str) -> Value {
        let mut answer = ureq::get(format!("{}{path}", self.url)).call().unwrap();
        serde_json::from_str(&answer.body_mut().read_to_string().unwrap()).unwrap()
    }

    /// Submits a job; none where the server was killed meanwhile.
    fn submit(url: &str, seed: usize) -> Option<String> {
        let body = json!({"prompt": "fire", "steps": 2, "seed": seed}).to_string();
        let answer =
            ureq::post(format!("{url}/v1/jobs")).header("content-type", "application/json").send(body);
        let job: Value = serde_json::from_str(&answer.ok()?.body_mut().read_to_string().ok()?).ok()?;
        job["id"].as_str().map(str::to_owned)
    }

    fn signal(&self, name: &str) {
        let id = self.child.id().to_string();
        assert!(Command::new("kill").args([name, &id]).status().unwrap().success());
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Kills of a test; 30 for the figure of the guide: `LDM_KILLS=30`.
fn kills() -> usize {
    std::env::var("LDM_KILLS").map_or(3, |kills| kills.parse().expect("LDM_KILLS: a number"))
}

#[test]
fn every_accepted_job_is_done_once_after_kills_under_load() {
    let data = tempfile::tempdir().unwrap();
    let (mut accepted, mut seed) = (Vec::new(), 0);
    for kill in 0..kills() {
        let server = Process::start(data.path());
        let url = server.url.clone();
        let first = seed;
        let clients = std::thread::spawn(move || {
            let each = (first..).map_while(|seed| Some((seed, Process::submit(&url, seed)?)));
            each.take(25).collect::<Vec<_>>()
        });
        // Every kill comes at another moment of some batch.
        std::thread::sleep(Duration::from_millis(150 + 97 * (kill as u64 % 7)));
        drop(server);
        let jobs = clients.join().unwrap();
        seed += jobs.len() + 1;
        accepted.extend(jobs);
    }
    assert!(!accepted.is_empty());
    let server = Process::start(data.path());
    let images: Vec<_> = accepted
        .iter()
        .map(|(seed, id)| {
            let job = loop {
                let job = server.get(&format!("/v1/jobs/{id}?wait=30"));
                if job["finished"].is_u64() {
                    break job;
                }
            };
            assert_eq!((&job["state"], &job["request"]["seed"]), (&json!("done"), &json!(seed)), "{job}");
            assert_eq!(job["images"].as_array().unwrap().len(), 1, "{job}");
            ureq::get(format!("{}/v1/jobs/{id}/images/0", server.url))
                .call()
                .unwrap()
                .body_mut()
                .read_to_vec()
                .unwrap()
        })
        .collect();
    // A job whose answer the kill cut off is there too, and nothing else.
    let (mut all, mut page) = (0, vec![Value::Null]);
    while !page.is_empty() {
        page = server.get(&format!("/v1/jobs?limit=500&offset={all}"))["jobs"].as_array().unwrap().clone();
        all += page.len();
    }
    assert!(
        (accepted.len()..=accepted.len() + kills()).contains(&all),
        "{} accepted, {all} kept",
        accepted.len()
    );
    // The bytes are those of a server that nobody killed.
    let other = tempfile::tempdir().unwrap();
    let fresh = Process::start(other.path());
    let (seed, id) = (accepted[0].0, Process::submit(&fresh.url, accepted[0].0).unwrap());
    fresh.get(&format!("/v1/jobs/{id}?wait=60"));
    let path = format!("{}/v1/jobs/{id}/images/0", fresh.url);
    assert!(ureq::get(path).call().unwrap().body_mut().read_to_vec().unwrap() == images[0], "seed {seed}");
}

#[test]
fn sigterm_stops_in_order_and_a_folder_belongs_to_one_server() {
    let data = tempfile::tempdir().unwrap();
    let mut server = Process::start(data.path());
    let second =
        Command::new(LDM).args(["serve", "--port", "0", "--data"]).arg(data.path()).output().unwrap();
    assert_eq!(second.status.code(), Some(1));
    let error = String::from_utf8(second.stderr).unwrap();
    assert!(error.contains("journal.sqlite: another server has it open"), "{error}");
    Process::submit(&server.url, 1).unwrap();
    let begun = Instant::now();
    server.signal("-TERM");
    assert!(server.child.wait().unwrap().success());
    assert!(begun.elapsed() < Duration::from_secs(30));
}

#[test]
fn the_bytes_are_those_of_the_command() {
    let folder = tempfile::tempdir().unwrap();
    let server = Process::start(&folder.path().join("data"));
    let id = Process::submit(&server.url, 5).unwrap();
    server.get(&format!("/v1/jobs/{id}?wait=60"));
    let path = format!("{}/v1/jobs/{id}/images/0", server.url);
    let served = ureq::get(path).call().unwrap().body_mut().read_to_vec().unwrap();
    let out = folder.path().join("out");
    let args =
        ["txt2img", "fire", "--steps", "2", "--seed", "5", "--threads", "1", "-q", "--skip-grid", "--out"];
    assert!(Command::new(LDM).args(args).arg(&out).status().unwrap().success());
    assert!(std::fs::read(out.join("00000.png")).unwrap() == served);
}

#[test]
fn wrong_flags_are_refused() {
    let folder = tempfile::tempdir().unwrap();
    for (args, message) in [
        (vec!["no-such-model"], "no-such-model"),
        (vec!["emoji", "emoji"], "two models are named emoji; try NAME=PATH"),
        (vec!["--user", "ada"], "--user: expected NAME:PASSWORD"),
        (vec!["--api-key", ""], "--api-key: expected a key, got an empty one"),
        (vec!["--loras", "nowhere"], "nowhere: No such file or directory"),
    ] {
        let output = Command::new(LDM)
            .arg("serve")
            .args(&args)
            .args(["--port", "0"])
            .current_dir(folder.path())
            .output();
        let output = output.unwrap();
        let error = String::from_utf8(output.stderr).unwrap();
        assert!(!output.status.success() && error.contains(message), "{args:?}: {error}");
    }
}

#[test]
fn a_child_ends_with_its_stdin_and_keeps_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let mut child = Command::new(LDM)
        .args(["serve", "--child", "--port", "0", "--threads", "1", "-q"])
        .env("TMPDIR", folder.path())
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut url = String::new();
    BufReader::new(child.stdout.take().unwrap()).read_line(&mut url).unwrap();
    let body = json!({"prompt": "fire", "steps": 1000}).to_string();
    let jobs = format!("{}/v1/jobs", url.trim_end());
    ureq::post(jobs).header("content-type", "application/json").send(body).unwrap();
    assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 1);
    let begun = Instant::now();
    drop(child.stdin.take());
    assert!(child.wait().unwrap().success());
    // Without waiting for the job.
    assert!(begun.elapsed() < Duration::from_secs(10));
    assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 0);
}

#[test]
fn empty_and_unreadable_secrets_are_refused() {
    use std::ffi::OsStr;
    use std::os::unix::ffi::OsStrExt;

    let data = tempfile::tempdir().unwrap();
    let error = |arguments: &[&str], key: &[u8]| {
        let mut ldm = Command::new(LDM);
        ldm.args(["serve", "--port", "0", "--data"]).arg(data.path()).args(arguments);
        let output = ldm.env("LDM_API_KEY", OsStr::from_bytes(key)).output().unwrap();
        assert_eq!(output.status.code(), Some(1));
        String::from_utf8(output.stderr).unwrap()
    };
    for user in ["ada:", ":love", "ada"] {
        let text = error(&["--user", user], b"key");
        assert!(text.contains("--user: expected NAME:PASSWORD"), "{user}: {text}");
    }
    // Ignored, the server would be open to everyone.
    let text = error(&[], b"\xff\xfe");
    assert!(text.contains("LDM_API_KEY: expected a key in UTF-8"), "{text}");
}
