//! A server of a test, on a free port of this machine.

use std::path::Path;
use std::time::Duration;

use ldm_serve::{Limits, ResultRetention, ServeOptions, Server};
use serde_json::Value;
use tch::{Device, Kind};
use tempfile::TempDir;
use tokio::runtime::Runtime;
use tokio::sync::oneshot;
use tokio::task::JoinHandle;

/// A running server, which stops when it is dropped.
pub(crate) struct TestServer {
    pub(crate) url: String,
    stop: Option<oneshot::Sender<()>>,
    run: Option<JoinHandle<()>>,
    runtime: Runtime,
    /// Of a server with new data.
    folder: Option<TempDir>,
}

/// Options of a server of the emoji model, with its data in a folder.
pub(crate) fn options(data: &Path) -> ServeOptions {
    ServeOptions {
        address: "127.0.0.1:0".parse().unwrap(),
        models: vec!["emoji".into()],
        loaded_models: 1,
        loras: None,
        embeddings: None,
        runs: None,
        data: data.to_path_buf(),
        device: Device::Cpu,
        kind: Kind::Float,
        batch_size: 4,
        limits: Limits::default(),
        retention: ResultRetention::default(),
        access: ldm_serve::Access::default(),
    }
}

impl TestServer {
    /// A server of the emoji model with new data.
    pub(crate) fn new() -> Self {
        Self::with(|_| {})
    }

    /// The same with changed options.
    pub(crate) fn with(change: impl FnOnce(&mut ServeOptions)) -> Self {
        let data = tempfile::tempdir().unwrap();
        let mut options = options(data.path());
        change(&mut options);
        let mut server = Self::start(options);
        server.folder = Some(data);
        server
    }

    /// A server of given options.
    pub(crate) fn start(options: ServeOptions) -> Self {
        let runtime = Runtime::new().unwrap();
        let server = runtime.block_on(Server::start(options)).unwrap();
        let url = format!("http://{}", server.address());
        let (stop, stopped) = oneshot::channel();
        let run = runtime.spawn(async {
            let stopped = async { stopped.await.unwrap_or_default() };
            server.run(stopped).await.unwrap();
        });
        Self { url, stop: Some(stop), run: Some(run), runtime, folder: None }
    }

    /// Sends a body, or none; returns the status and the JSON of the answer.
    pub(crate) fn send(&self, method: &str, path: &str, body: Option<&Value>) -> (u16, Value) {
        let url = format!("{}{path}", self.url);
        let request = ureq::http::Request::builder().method(method).uri(url);
        let mut answer = match body {
            Some(body) => {
                let request = request.header("content-type", "application/json").body(body.to_string());
                agent().run(request.unwrap()).unwrap()
            }
            None => agent().run(request.body(()).unwrap()).unwrap(),
        };
        let status = answer.status().as_u16();
        let text = answer.body_mut().read_to_string().unwrap();
        (status, serde_json::from_str(&text).unwrap_or(Value::String(text)))
    }

    /// `GET` of JSON; panics on an error.
    pub(crate) fn get(&self, path: &str) -> Value {
        let (status, value) = self.send("GET", path, None);
        assert_eq!(status, 200, "{path}: {value}");
        value
    }

    /// `POST` of JSON; returns status and JSON.
    pub(crate) fn post(&self, path: &str, body: &Value) -> (u16, Value) {
        self.send("POST", path, Some(body))
    }

    /// The bytes of an answer of status 200.
    pub(crate) fn bytes(&self, path: &str) -> Vec<u8> {
        let mut answer = agent().get(format!("{}{path}", self.url)).call().unwrap();
        assert_eq!(answer.status(), 200, "{path}");
        answer.body_mut().read_to_vec().unwrap()
    }

    /// Submits a job of the own API, and returns its end.
    pub(crate) fn job(&self, request: &Value) -> Value {
        let (status, job) = self.post("/v1/jobs", request);
        assert_eq!(status, 202, "{job}");
        self.end(job["id"].as_str().unwrap())
    }

    /// Waits for the end of a job.
    pub(crate) fn end(&self, id: &str) -> Value {
        loop {
            let job = self.get(&format!("/v1/jobs/{id}?wait=30"));
            if matches!(job["state"].as_str(), Some("done" | "failed" | "canceled")) {
                return job;
            }
        }
    }
}

impl Drop for TestServer {
    fn drop(&mut self) {
        drop(self.stop.take());
        if let Some(run) = self.run.take() {
            let end =
                self.runtime.block_on(async { tokio::time::timeout(Duration::from_mins(1), run).await });
            if !std::thread::panicking() {
                end.expect("the server stops").expect("it does not panic");
            }
        }
    }
}

/// A client that returns every status, and whose answers may take long.
pub(crate) fn agent() -> ureq::Agent {
    ureq::Agent::config_builder()
        .http_status_as_error(false)
        .timeout_global(Some(Duration::from_mins(2)))
        .build()
        .into()
}

/// Megabytes of this process, under a key of `/proc/self/status`.
pub(crate) fn memory(key: &str) -> f64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find(|line| line.starts_with(key)).unwrap();
    line.split_whitespace().nth(1).unwrap().parse::<f64>().unwrap() / 1024.
}
