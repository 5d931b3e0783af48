//! `ldm weights`, against a local server with the faults of real ones.

mod server;

use std::io::{BufRead, BufReader};
use std::path::PathBuf;
use std::process::{Child, Command, Output, Stdio};
use std::sync::{Arc, Mutex, mpsc};
use std::time::{Duration, Instant};

use ldm_testing::{Sandbox, text};
use sha2::{Digest, Sha256};

use crate::LDM;
use server::{Reply, Server};

const SIZE: usize = 300_000;
const HALF: usize = SIZE / 2;

fn bytes() -> Vec<u8> {
    (0..SIZE).map(|index| (index * index % 251) as u8).collect()
}

fn sha256(bytes: &[u8]) -> String {
    Sha256::digest(bytes).iter().fold(String::new(), |digits, byte| digits + &format!("{byte:02x}"))
}

/// A sandbox with a manifest and a cache folder.
struct Cache(Sandbox);

impl Cache {
    /// A manifest of `thing`, with the file `net.bin`, and `pair`, with `net.bin` and `head.bin`, at `url`.
    fn new(url: &str) -> Self {
        let sandbox = Self(Sandbox::new(LDM, &[]));
        let file = |name: &str, bytes: &[u8]| {
            format!(
                "    - {{name: {name}, url: \"{url}/{name}\", license: MIT, size: {}, sha256: {}}}\n",
                bytes.len(),
                sha256(bytes)
            )
        };
        let (net, head) = (file("net.bin", &bytes()), file("head.bin", b"a head"));
        let list = format!(
            "- name: thing\n  for: tests\n  files:\n{net}- name: pair\n  for: tests\n  files:\n{net}{head}"
        );
        std::fs::write(sandbox.path("list.yaml"), list).unwrap();
        sandbox
    }

    fn path(&self, name: &str) -> PathBuf {
        match name.strip_prefix("cache/") {
            Some(name) => self.0.weights(name),
            None => self.0.path(name),
        }
    }

    fn installed(&self) -> PathBuf {
        self.path("cache/thing/net.bin")
    }

    fn part(&self) -> PathBuf {
        self.path("cache/thing/net.bin.part")
    }

    fn leave_part(&self, bytes: &[u8]) {
        std::fs::create_dir_all(self.path("cache/thing")).unwrap();
        std::fs::write(self.part(), bytes).unwrap();
    }

    fn command(&self, args: &[&str]) -> Command {
        let mut command = self.0.command(&[&["weights"], args].concat());
        command.env_remove("LDM_WEIGHTS_URL");
        for proxy in ["http_proxy", "https_proxy", "all_proxy"] {
            command.env_remove(proxy).env_remove(proxy.to_uppercase());
        }
        command
    }

    fn run(&self, args: &[&str]) -> Output {
        self.command(&[args, &["--manifest", "list.yaml"]].concat()).output().unwrap()
    }

    #[track_caller]
    fn ok(&self, args: &[&str]) -> CommandOutput {
        let output = self.run(args);
        let printed = CommandOutput { out: text(&output.stdout), error: text(&output.stderr) };
        assert!(output.status.success(), "{args:?}: {}", printed.error);
        printed
    }

    /// Checks that it fails with `code` and a line that contains all of `expected`, and installs nothing.
    #[track_caller]
    fn err(&self, args: &[&str], code: i32, expected: &[&str]) {
        let output = self.run(args);
        let error = text(&output.stderr);
        assert_eq!(output.status.code(), Some(code), "{args:?}: {error}");
        let fits = |line: &str| expected.iter().all(|word| line.contains(word));
        assert!(error.lines().any(fits), "{args:?}: expected {expected:?} in {error}");
        assert_eq!(text(&output.stdout), "", "{args:?}");
        assert!(!self.installed().exists(), "{args:?}");
    }

    /// Checks that the complete file is installed, without a partial one.
    #[track_caller]
    fn is_whole(&self) {
        assert!(std::fs::read(self.installed()).unwrap() == bytes(), "other bytes");
        assert!(!self.part().exists(), "a partial file is left");
    }
}

struct CommandOutput {
    out: String,
    error: String,
}

const GET: [&str; 2] = ["get", "thing"];
/// Arguments without retries, so that tests do not wait.
const GET_ONCE: [&str; 4] = ["get", "thing", "--retries", "0"];

#[test]
fn a_file_is_downloaded_once() {
    let server = Server::start(|_, request| Reply::requested(&bytes(), request));
    let sandbox = Cache::new(&server.url);
    let printed = sandbox.ok(&GET);
    assert_eq!(printed.out, format!("{}\n", sandbox.installed().display()));
    assert!(printed.error.contains("license: MIT"), "{}", printed.error);
    sandbox.is_whole();
    sandbox.ok(&GET);
    assert_eq!(server.ranges(), [(None, SIZE)], "an installed file is not downloaded again");

    let list: serde_json::Value = serde_json::from_str(&sandbox.ok(&["list", "--json"]).out).unwrap();
    let [thing, pair] = [&list["resources"][0], &list["resources"][1]];
    assert_eq!((thing["name"].as_str(), thing["installed"].as_bool()), (Some("thing"), Some(true)));
    assert_eq!(thing["files"][0]["path"].as_str(), sandbox.installed().to_str());
    assert_eq!(thing["files"][0]["sha256"].as_str(), Some(sha256(&bytes()).as_str()));
    assert_eq!((pair["installed"].as_bool(), pair["size"].as_u64()), (Some(false), Some(SIZE as u64 + 6)));
    assert!(pair["files"][0]["path"].is_null());
    let table = sandbox.ok(&["list"]).out;
    assert!(table.contains("300.0 kB") || table.contains("0.3 MB"), "{table}");
    assert!(table.contains("not installed"), "{table}");
}

#[test]
fn a_broken_transfer_resumes_in_the_same_run() {
    let server = Server::start(|number, request| {
        let reply = Reply::requested(&bytes(), request);
        if number == 0 { reply.cut(HALF) } else { reply }
    });
    let sandbox = Cache::new(&server.url);
    let printed = sandbox.ok(&GET);
    assert!(
        printed.error.contains(&format!("the transfer ended after {HALF} of {SIZE} bytes")),
        "{}",
        printed.error
    );
    sandbox.is_whole();
    assert_eq!(server.ranges(), [(None, HALF), (Some(HALF), HALF)], "no byte twice");
}

#[test]
fn a_failed_transfer_resumes_in_the_next_run() {
    let server = Server::start(|number, request| match number {
        0 => Reply::requested(&bytes(), request).cut(HALF),
        1 => Reply::status("503 Service Unavailable"),
        _ => Reply::requested(&bytes(), request),
    });
    let sandbox = Cache::new(&server.url);
    sandbox.err(&GET_ONCE, 1, &[&format!("received {HALF} of {SIZE} bytes")]);
    assert_eq!(std::fs::metadata(sandbox.part()).unwrap().len(), HALF as u64);
    sandbox.ok(&GET);
    sandbox.is_whole();
    assert_eq!(server.ranges(), [(None, HALF), (Some(HALF), 0), (Some(HALF), HALF)]);
}

#[test]
fn a_server_without_ranges_restarts_the_transfer() {
    let server = Server::start(|number, _| {
        let reply = Reply::whole(&bytes());
        if number == 0 { reply.cut(HALF) } else { reply }
    });
    let sandbox = Cache::new(&server.url);
    sandbox.ok(&GET);
    sandbox.is_whole();
    assert_eq!(server.ranges(), [(None, HALF), (Some(HALF), SIZE)]);
}

#[test]
fn a_partial_file_of_other_bytes_is_discarded() {
    let server = Server::start(|_, request| Reply::requested(&bytes(), request));
    let sandbox = Cache::new(&server.url);
    sandbox.leave_part(&[7; 1000]);
    assert!(sandbox.ok(&GET).error.contains("starting over"));
    sandbox.is_whole();
    assert_eq!(server.ranges(), [(Some(1000), SIZE - 1000), (None, SIZE)]);

    let sandbox = Cache::new(&server.url);
    sandbox.leave_part(&vec![7; SIZE + 1]);
    sandbox.ok(&GET);
    sandbox.is_whole();

    // A complete partial file needs no network.
    let sandbox = Cache::new("http://127.0.0.1:9");
    sandbox.leave_part(&bytes());
    sandbox.ok(&GET);
    sandbox.is_whole();
}

#[test]
fn other_bytes_are_never_installed() {
    let other = |length: usize| vec![7; length];
    let server = Server::start(move |_, _| Reply::whole(&other(SIZE)));
    let sandbox = Cache::new(&server.url);
    let (expected, found) = (sha256(&bytes()), sha256(&other(SIZE)));
    sandbox.err(&GET, 1, &["net.bin: expected sha256", &expected, "got", &found]);
    assert!(!sandbox.part().exists(), "a wrong partial file is removed");
    assert_eq!(server.requests().len(), 1);

    let server = Server::start(move |_, _| Reply::whole(&other(17)));
    Cache::new(&server.url).err(&GET, 1, &["net.bin: expected 300000 bytes, got 17"]);
    let server = Server::start(move |_, _| Reply::of_no_length(&other(SIZE + 1)));
    Cache::new(&server.url).err(&GET, 1, &["net.bin: expected 300000 bytes, got more"]);
    let server = Server::start(move |_, _| Reply::of_no_length(&other(SIZE - 1)));
    let cut = ["the transfer ended after 299999 of 300000 bytes"];
    Cache::new(&server.url).err(&GET_ONCE, 1, &cut);
}

#[test]
fn errors_are_one_line() {
    let server = Server::start(|_, _| Reply::status("404 Not Found"));
    Cache::new(&server.url).err(&GET, 1, &[&server.url, "net.bin: 404 Not Found"]);
    assert_eq!(server.requests().len(), 1, "a missing file is requested once");

    let server = Server::start(|_, _| Reply::redirect("/net.bin"));
    Cache::new(&server.url).err(&GET, 1, &["net.bin", "redirects"]);

    Cache::new("http://127.0.0.1:9").err(&GET, 1, &["net.bin: no connection"]);
    Cache::new("http://nowhere.invalid").err(&GET, 1, &["http://nowhere.invalid/net.bin: no "]);
    Cache::new("ftp://127.0.0.1").err(&GET, 1, &["ftp://127.0.0.1/net.bin"]);

    let sandbox = Cache::new(&server.url);
    sandbox.err(&["get"], 2, &["one of thing, pair"]);
    sandbox.err(&["get", "thong"], 2, &["NAME: expected one of thing, pair, got thong"]);
    sandbox.err(&["get", "thing", "--from", "x", "--url", "y"], 2, &["cannot be used with"]);
    sandbox.err(&["get", "thing", "--from", "nowhere"], 1, &["nowhere"]);
    std::fs::write(sandbox.path("list.yaml"), "- {nome: x}").unwrap();
    sandbox.err(&GET, 1, &["list.yaml", "unknown field `nome`"]);

    let mut homeless = sandbox.command(&["list"]);
    for variable in ["LDM_WEIGHTS", "XDG_CACHE_HOME", "HOME"] {
        homeless.env_remove(variable);
    }
    let output = homeless.output().unwrap();
    assert!(text(&output.stderr).contains("HOME: expected a folder"), "{}", text(&output.stderr));
}

#[cfg(target_os = "linux")]
#[test]
fn a_full_disk_is_reported() {
    let server = Server::start(|_, request| Reply::requested(&bytes(), request));
    let sandbox = Cache::new(&server.url);
    std::fs::create_dir_all(sandbox.path("cache/thing")).unwrap();
    std::os::unix::fs::symlink("/dev/full", sandbox.part()).unwrap();
    sandbox.err(&GET, 1, &["the disk is full, 300000 bytes are missing"]);
    assert_eq!(server.requests().len(), 1);
}

#[test]
fn redirects_are_followed_with_ranges() {
    let server = Server::start(|_, request| match request.path.as_str() {
        "/net.bin" => Reply::redirect("/elsewhere"),
        _ => Reply::requested(&bytes(), request),
    });
    let sandbox = Cache::new(&server.url);
    sandbox.leave_part(&bytes()[..HALF]);
    sandbox.ok(&GET);
    sandbox.is_whole();
    assert_eq!(server.ranges(), [(Some(HALF), 0), (Some(HALF), HALF)]);
}

#[test]
fn a_mirror_has_the_layout_of_the_cache() {
    let server = Server::start(|_, request| match request.path.as_str() {
        "/base/thing/net.bin" => Reply::requested(&bytes(), request),
        _ => Reply::status("404 Not Found"),
    });
    let sandbox = Cache::new("http://127.0.0.1:9");
    sandbox.ok(&[&GET[..], &["--url", &format!("{}/base/", server.url)]].concat());
    sandbox.is_whole();
    let sandbox = Cache::new("http://127.0.0.1:9");
    let mut command = sandbox.command(&["get", "thing", "--manifest", "list.yaml"]);
    let output = command.env("LDM_WEIGHTS_URL", format!("{}/base", server.url)).output().unwrap();
    assert!(output.status.success(), "{}", text(&output.stderr));
    sandbox.is_whole();
}

/// A manifest of `thing` whose `net.bin` is `member` of a zip at `url`, and the zip.
fn archived(url: &str, member: &str) -> (Cache, Vec<u8>) {
    let mut zip = zip::ZipWriter::new(std::io::Cursor::new(Vec::new()));
    zip.start_file("package/net.bin", zip::write::SimpleFileOptions::default()).unwrap();
    std::io::Write::write_all(&mut zip, &bytes()).unwrap();
    let zip = zip.finish().unwrap().into_inner();
    let sandbox = Cache::new(url);
    let list = format!(
        "- name: thing\n  for: tests\n  files:\n    - {{name: net.bin, url: \"{url}/package.whl\", license: MIT, size: {SIZE}, \
         sha256: {}, archive: {{member: {member}, size: {}, sha256: {}}}}}\n",
        sha256(&bytes()),
        zip.len(),
        sha256(&zip)
    );
    std::fs::write(sandbox.path("list.yaml"), list).unwrap();
    (sandbox, zip)
}

#[test]
fn a_file_of_an_archive_is_extracted() {
    let (_, zip) = archived("http://127.0.0.1:9", "package/net.bin");
    let server = Server::start(move |_, request| match request.path.as_str() {
        "/package.whl" => Reply::requested(&zip, request),
        _ => Reply::status("404 Not Found"),
    });
    let (sandbox, _) = archived(&server.url, "package/net.bin");
    sandbox.ok(&GET);
    sandbox.is_whole();
    assert!(!sandbox.path("cache/thing/net.bin.zip").exists(), "the archive is removed");

    let (sandbox, _) = archived(&server.url, "package/other.bin");
    sandbox.err(&GET, 1, &["net.bin.zip: `package/other.bin`: "]);
}

#[test]
fn copies_are_matched_by_their_bytes() {
    let sandbox = Cache::new("http://127.0.0.1:9");
    std::fs::create_dir(sandbox.path("mine")).unwrap();
    let write = |name: &str, bytes: &[u8]| std::fs::write(sandbox.path(name), bytes).unwrap();
    write("mine/whatever", &bytes());
    write("mine/other", &vec![7; SIZE]);
    write("mine/note.txt", b"a note");

    // One file, under any name; a wrong one is reported.
    sandbox.err(&["get", "thing", "--from", "mine/other"], 1, &["mine/other: expected sha256", "got"]);
    sandbox.err(&["get", "thing", "--from", "mine/note.txt"], 1, &["expected 300000 bytes, got 6"]);
    sandbox.leave_part(&bytes()[..HALF]);
    let printed = sandbox.ok(&["get", "thing", "--from", "mine/whatever"]);
    assert_eq!(printed.out, format!("{}\n", sandbox.installed().display()));
    sandbox.is_whole();

    // A folder; missing files are reported, the others installed.
    let pair = ["get", "pair", "--from", "mine"];
    let output = sandbox.run(&pair);
    let error = text(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{error}");
    assert!(error.contains("pair is not complete: no copy of `head.bin` (6 bytes)"), "{error}");
    assert!(sandbox.path("cache/pair/net.bin").is_file());
    write("head", b"a head");
    assert_eq!(sandbox.ok(&["get", "pair", "--from", "head"]).out.lines().count(), 2);
}

#[test]
fn an_installed_file_of_other_bytes_is_replaced_only_with_force() {
    let server = Server::start(|_, request| Reply::requested(&bytes(), request));
    let sandbox = Cache::new(&server.url);
    sandbox.ok(&GET);
    std::fs::write(sandbox.installed(), vec![7; SIZE]).unwrap();
    let output = sandbox.run(&GET);
    let error = text(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{error}");
    assert!(error.contains("try --force to replace it"), "{error}");
    sandbox.ok(&[&GET[..], &["--force"]].concat());
    sandbox.is_whole();
}

fn spawn(sandbox: &Cache) -> Child {
    let mut command = sandbox.command(&["get", "thing", "--manifest", "list.yaml"]);
    command.stderr(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap()
}

#[track_caller]
fn wait_until(what: &str, mut holds: impl FnMut() -> bool) {
    let start = Instant::now();
    while !holds() {
        assert!(start.elapsed() < Duration::from_secs(20), "timeout: {what}");
        std::thread::sleep(Duration::from_millis(5));
    }
}

#[test]
fn concurrent_downloads_wait_for_each_other() {
    let (release, blocked) = mpsc::channel::<()>();
    let blocked = Arc::new(Mutex::new(blocked));
    let server = Server::start(move |_, request| {
        blocked.lock().unwrap().recv().unwrap();
        Reply::requested(&bytes(), request)
    });
    let sandbox = Cache::new(&server.url);
    let first = spawn(&sandbox);
    wait_until("the first request", || !server.requests().is_empty());
    let mut second = spawn(&sandbox);
    let mut line = String::new();
    let mut words = BufReader::new(second.stderr.take().unwrap());
    words.read_line(&mut line).unwrap();
    assert!(line.contains("waiting for another `ldm weights get`"), "{line}");
    release.send(()).unwrap();
    for child in [first, second] {
        let output = child.wait_with_output().unwrap();
        assert!(output.status.success(), "{}", text(&output.stderr));
        assert_eq!(text(&output.stdout), format!("{}\n", sandbox.installed().display()));
    }
    sandbox.is_whole();
    assert_eq!(server.requests().len(), 1);
}

#[test]
fn ctrl_c_leaves_a_partial_file() {
    let server = Server::start(|number, request| {
        let reply = Reply::requested(&bytes(), request);
        if number == 0 { reply.stalled_after(HALF) } else { reply }
    });
    let sandbox = Cache::new(&server.url);
    let mut child = spawn(&sandbox);
    let length = || std::fs::metadata(sandbox.part()).map_or(0, |data| data.len());
    wait_until("half of the file", || length() == HALF as u64);
    let signaled = Instant::now();
    assert!(Command::new("kill").args(["-INT", &child.id().to_string()]).status().unwrap().success());
    assert_eq!(child.wait().unwrap().code(), Some(130));
    assert!(signaled.elapsed() < Duration::from_secs(2));
    assert!(!sandbox.installed().exists());
    sandbox.ok(&GET);
    sandbox.is_whole();
    assert_eq!(server.ranges(), [(None, HALF), (Some(HALF), HALF)]);
}

/// Checks the built-in manifest against the files.
#[test]
fn shared_files_match_the_manifest() {
    let Some(data) = ldm_testing::shared_data() else { return eprintln!("skipped: no shared data") };
    let sandbox = Cache::new("http://127.0.0.1:9");
    let from = |folder: &str| data.join(folder).to_str().unwrap().to_owned();
    let get = |args: &[&str]| sandbox.command(&[&["get"], args].concat()).output().unwrap();
    let tokenizers = get(&["bert-tokenizer", "clip-tokenizer", "--from", &from("tokenizers")]);
    assert!(tokenizers.status.success(), "{}", text(&tokenizers.stderr));
    assert_eq!(text(&tokenizers.stdout).lines().count(), 2);
    let error = text(&get(&["lpips-vgg16", "--from", &from("weights")]).stderr);
    assert!(error.contains("no copy of `vgg16-397923af.pth` (553433881 bytes)"), "{error}");
    assert!(sandbox.path("cache/lpips-vgg16/vgg.pth").is_file());
}
