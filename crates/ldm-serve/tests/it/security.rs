//! Requests of other pages, and files of others.

use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::Path;

use serde_json::{Value, json};

use crate::server::{TestServer, agent, options};

/// The status of an answer.
fn status(server: &TestServer, method: &str, path: &str, headers: &[(&str, &str)], body: &str) -> u16 {
    let mut request = ureq::http::Request::builder().method(method).uri(format!("{}{path}", server.url));
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    agent().run(request.body(body.to_owned()).unwrap()).unwrap().status().as_u16()
}

#[test]
fn a_server_without_credentials_answers_to_its_own_names() {
    let server = TestServer::with(|options| {
        options.address = "0.0.0.0:0".parse().unwrap();
        options.access.hosts = vec!["studio.example".into()];
    });
    let get = |host: &str| status(&server, "GET", "/v1/jobs", &[("host", host)], "");
    for host in ["evil.example", "evil.example:7860", "127.0.0.1.evil.example"] {
        assert_eq!(get(host), 403, "{host}");
    }
    for host in ["192.168.1.5:7860", "[::1]", "localhost", "studio.example"] {
        assert_eq!(get(host), 200, "{host}");
    }
    // The attacker's name as the origin and the host.
    let rebound =
        [("host", "evil.example"), ("origin", "http://evil.example"), ("content-type", "application/json")];
    assert_eq!(status(&server, "POST", "/v1/jobs", &rebound, "{}"), 403);
}

#[test]
fn what_pages_may_send_unasked_is_refused() {
    let server = TestServer::new();
    let body = r#"{"prompt": "fire", "steps": 1, "width": 64, "height": 64}"#;
    for path in ["/sdapi/v1/txt2img", "/sdapi/v1/options", "/v1/jobs", "/v1/images/generations"] {
        for kind in [
            "text/plain",
            "text/plain;charset=UTF-8",
            "application/x-www-form-urlencoded",
            "multipart/form-data",
        ] {
            assert_eq!(status(&server, "POST", path, &[("content-type", kind)], body), 400, "{path} {kind}");
        }
    }
    for kind in ["application/json", "application/json; charset=utf-8"] {
        assert_eq!(
            status(&server, "POST", "/sdapi/v1/txt2img", &[("content-type", kind)], body),
            200,
            "{kind}"
        );
    }
    for (path, method) in [("/v1/jobs", "GET"), ("/v1/events", "GET"), ("/sdapi/v1/interrupt", "POST")] {
        let image = [("sec-fetch-site", "cross-site"), ("sec-fetch-mode", "no-cors")];
        assert_eq!(status(&server, method, path, &image, ""), 403, "{path}");
    }
    let link =
        [("sec-fetch-site", "cross-site"), ("sec-fetch-mode", "navigate"), ("sec-fetch-dest", "document")];
    assert_eq!(status(&server, "GET", "/", &link, ""), 200);
}

#[test]
fn only_preflights_pass_without_credentials() {
    let server = TestServer::with(|options| options.access.keys = vec!["secret".into()]);
    assert_eq!(status(&server, "OPTIONS", "/sdapi/v1/interrogate", &[], ""), 401);
    let preflight = [("access-control-request-method", "POST"), ("origin", server.url.as_str())];
    assert_eq!(status(&server, "OPTIONS", "/v1/jobs", &preflight, ""), 204);
}

#[test]
fn wrong_keys_take_time() {
    let server = TestServer::with(|options| options.access.keys = vec!["secret".into()]);
    let begun = std::time::Instant::now();
    assert_eq!(status(&server, "GET", "/v1/jobs", &[("authorization", "Bearer guess")], ""), 401);
    assert_eq!(status(&server, "GET", "/v1/jobs", &[("x-api-key", "guess")], ""), 401);
    assert!(begun.elapsed() >= std::time::Duration::from_millis(500), "{:?}", begun.elapsed());
}

#[test]
fn users_and_every_origin_do_not_go_together() {
    let data = tempfile::tempdir().unwrap();
    let mut options = options(data.path());
    (options.access.users, options.access.origins) = (vec!["ada:love".into()], vec!["*".into()]);
    let error = refusal(options);
    assert!(error.starts_with("expected origins by name together with users"), "{error}");
}

#[test]
fn answers_are_not_stored_by_browsers() {
    let server = TestServer::new();
    let job = server.job(&json!({"prompt": "fire", "steps": 1}));
    let id = job["id"].as_str().unwrap();
    let header = |path: &str, name: &str| {
        let answer = agent().get(format!("{}{path}", server.url)).call().unwrap();
        answer.headers()[name].to_str().unwrap().to_owned()
    };
    assert_eq!(header("/v1/jobs", "cache-control"), "no-store");
    assert_eq!(header(&format!("/v1/jobs/{id}"), "cache-control"), "no-store");
    assert_eq!(header(&format!("/v1/jobs/{id}/images/0"), "vary"), "authorization, x-api-key");
}

/// The error of a server that does not start.
fn refusal(options: ldm_serve::ServeOptions) -> String {
    let runtime = tokio::runtime::Runtime::new().unwrap();
    runtime.block_on(ldm_serve::Server::start(options)).unwrap_err().to_string()
}

#[test]
fn files_that_are_not_the_servers_are_left_alone() {
    let data = tempfile::tempdir().unwrap();
    let thesis = data.path().join("jobs/thesis/chapter.txt");
    std::fs::create_dir_all(thesis.parent().unwrap()).unwrap();
    std::fs::write(&thesis, "x").unwrap();
    let error = refusal(options(data.path()));
    assert!(
        error.ends_with("jobs: expected only the server's own folders, got thesis; try another --data"),
        "{error}"
    );
    assert!(thesis.exists());
    std::fs::remove_dir_all(data.path().join("jobs")).unwrap();
    // What a file manager leaves.
    let server = TestServer::start(options(data.path()));
    let id = server.job(&json!({"prompt": "fire", "steps": 1}))["id"].as_str().unwrap().to_owned();
    drop(server);
    std::fs::write(data.path().join("jobs/.DS_Store"), "x").unwrap();
    drop(TestServer::start(options(data.path())));
    assert!(data.path().join("jobs/.DS_Store").exists());
    // Results whose journal is lost.
    for name in ["journal.sqlite", "journal.sqlite-wal", "journal.sqlite-shm"] {
        let _ = std::fs::remove_file(data.path().join(name));
    }
    let error = refusal(options(data.path()));
    assert!(
        error.ends_with("jobs: expected no results without their journal; try another --data"),
        "{error}"
    );
    assert!(data.path().join("jobs").join(id).join("00000.png").exists());
}

#[test]
fn results_are_for_this_account_alone() {
    let parent = tempfile::tempdir().unwrap();
    let data = parent.path().join("data");
    let server = TestServer::start(options(&data));
    server.job(&json!({"prompt": "fire", "steps": 1}));
    let mode = |path: &Path| path.metadata().unwrap().permissions().mode() & 0o777;
    assert_eq!((mode(&data), mode(&data.join("jobs"))), (0o700, 0o700));
    assert_eq!(mode(&data.join("journal.sqlite")), 0o600);
}

/// Runs a statement on the journal of a server that has stopped.
fn execute(data: &Path, sql: &str) {
    let journal = rusqlite::Connection::open(data.join("journal.sqlite")).unwrap();
    assert!(journal.execute(sql, []).unwrap() > 0, "{sql}");
}

#[test]
fn an_entry_of_another_version_hides_no_other() {
    let data = tempfile::tempdir().unwrap();
    let server = TestServer::start(options(data.path()));
    let [first, second] = [1, 2].map(|seed| server.job(&json!({"prompt": "fire", "steps": 1, "seed": seed})));
    drop(server);
    let (first, second) = (first["id"].as_str().unwrap(), second["id"].as_str().unwrap());
    let renamed = format!("UPDATE jobs SET request = '{{\"promt\":\"\"}}' WHERE id = '{first}'");
    execute(data.path(), &renamed);
    let server = TestServer::start(options(data.path()));
    let jobs = server.get("/v1/jobs")["jobs"].clone();
    assert_eq!((jobs.as_array().unwrap().len(), &jobs[0]["id"]), (1, &json!(second)));
    drop(server);
    // Neither does one that has not ended, and its files stay.
    execute(data.path(), &format!("UPDATE jobs SET finished = NULL, state = 'queued' WHERE id = '{first}'"));
    let server = TestServer::start(options(data.path()));
    assert_eq!(server.job(&json!({"prompt": "fire", "steps": 1}))["state"], "done");
    assert!(data.path().join("jobs").join(first).join("00000.png").exists());
}

#[test]
fn a_job_that_killed_the_server_alone_is_given_up() {
    let data = tempfile::tempdir().unwrap();
    let server = TestServer::start(options(data.path()));
    let id = |job: &Value| job["id"].as_str().unwrap().to_owned();
    let [suspect, guilty] =
        [1, 2].map(|seed| id(&server.job(&json!({"prompt": "fire", "steps": 1, "seed": seed}))));
    drop(server);
    for (id, attempts) in [(&suspect, 5), (&guilty, 6)] {
        let died = format!("finished = NULL, state = 'running', attempts = {attempts}");
        execute(data.path(), &format!("UPDATE jobs SET {died} WHERE id = '{id}'"));
    }
    let server = TestServer::start(options(data.path()));
    assert_eq!(server.end(&suspect)["state"], "done");
    assert_eq!(server.end(&guilty)["error"]["message"], "the server died 6 times while this job ran");
}

#[test]
fn links_and_pipes_in_runs_are_not_followed() {
    let folder = tempfile::tempdir().unwrap();
    let secret = folder.path().join("secret");
    std::fs::write(&secret, "{\"step\": 7, \"SECRET\": 1}\n").unwrap();
    let run = |name: &str| {
        let run = folder.path().join("runs").join(name);
        std::fs::create_dir_all(run.join("samples")).unwrap();
        std::fs::write(run.join("metrics.jsonl"), "{\"step\":1,\"loss\":2}\n").unwrap();
        run
    };
    let plain = run("plain");
    symlink(&secret, plain.join("config.yaml")).unwrap();
    symlink(&secret, plain.join("samples/step-1.png")).unwrap();
    std::fs::write(plain.join("samples/step-2.png"), "png").unwrap();
    let linked = run("linked");
    std::fs::remove_file(linked.join("metrics.jsonl")).unwrap();
    symlink(&secret, linked.join("metrics.jsonl")).unwrap();
    let pipe = run("pipe");
    assert!(std::process::Command::new("mkfifo").arg(pipe.join("config.yaml")).status().unwrap().success());
    let outside = run("outside");
    std::fs::remove_dir(outside.join("samples")).unwrap();
    symlink(plain.join("samples"), outside.join("samples")).unwrap();
    let server = TestServer::with(|options| options.runs = Some(folder.path().join("runs")));
    let names: Vec<_> =
        server.get("/v1/runs")["runs"].as_array().unwrap().iter().map(|run| run["name"].clone()).collect();
    assert!(names.len() == 3 && !names.contains(&json!("linked")), "{names:?}");
    let view = server.get("/v1/runs/plain");
    assert_eq!((&view["config"], view["samples"].as_array().unwrap().len()), (&json!(""), 1), "{view}");
    assert_eq!(server.send("GET", "/v1/runs/plain/samples/step-1.png", None).0, 404);
    assert_eq!(server.bytes("/v1/runs/plain/samples/step-2.png"), b"png");
    assert_eq!(server.get("/v1/runs/pipe")["config"], "");
    assert_eq!(server.get("/v1/runs/outside")["samples"], json!([]));
    // No path of a request is a path of a file.
    for path in [
        "/v1/runs/..",
        "/v1/runs/%2e%2e%2fsecret",
        "/v1/runs/plain/samples/..%2f..%2f..%2fsecret",
        "/v1/jobs/..%2f..%2fetc",
        "/v1/jobs/..%2fx/images/0",
        "/v1/jobs/..%2fx/latents/0",
    ] {
        let (status, answer) = server.send("GET", path, None);
        assert!(
            matches!(status, 400 | 404) && !answer.to_string().contains("SECRET"),
            "{path}: {status} {answer}"
        );
    }
}

#[test]
fn a_task_has_no_name_of_a_job() {
    let server = TestServer::new();
    let body = json!({"prompt": "fire", "steps": 1, "force_task_id": "0".repeat(32)});
    let (status, answer) = server.post("/sdapi/v1/txt2img", &body);
    assert_eq!(status, 400, "{answer}");
    assert!(
        answer["detail"].as_str().unwrap().starts_with("force_task_id: expected a name other than"),
        "{answer}"
    );
}
