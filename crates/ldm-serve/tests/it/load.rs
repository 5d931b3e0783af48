//! Many requests of many clients: none is lost, none runs twice, and what they cost. `LDM_LOAD=2000` is the long form.

use std::collections::HashSet;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};

use crate::server::{TestServer, agent, memory};

const CLIENTS: usize = 64;

/// Requests of the long form; none in the short one.
pub(crate) fn long() -> Option<usize> {
    let requests = std::env::var("LDM_LOAD").ok()?;
    Some(requests.parse().expect("LDM_LOAD: a number of requests"))
}

/// The value below which `share` of the sorted `values` are.
fn percentile(values: &[f64], share: f64) -> f64 {
    values[((values.len() - 1) as f64 * share) as usize]
}

/// A client, which keeps its connection.
struct Client<'a> {
    server: &'a TestServer,
    agent: ureq::Agent,
    /// Times that the queue was full.
    refused: &'a AtomicUsize,
}

impl Client<'_> {
    /// Sends until the queue has room.
    fn post(&self, path: &str, body: &Value) -> Value {
        loop {
            let request = self.agent.post(format!("{}{path}", self.server.url));
            let request = request.header("content-type", "application/json");
            let mut answer = request.send(&body.to_string()).unwrap();
            let status = answer.status().as_u16();
            let text = answer.body_mut().read_to_string().unwrap();
            if status == 429 {
                assert_eq!(answer.headers()["retry-after"], "5");
                self.refused.fetch_add(1, Ordering::Relaxed);
                std::thread::sleep(Duration::from_millis(100));
                continue;
            }
            assert!(status == 200 || status == 202, "{path}: {status} {text}");
            return serde_json::from_str(&text).unwrap();
        }
    }

    /// The base64 of a whole PNG.
    fn check(image: &Value) {
        let png = STANDARD.decode(image.as_str().unwrap()).unwrap();
        assert_eq!(image::load_from_memory(&png).unwrap().width(), 64);
    }

    /// A request by one of the APIs; every fifth job of the own one is canceled.
    fn request(&self, number: usize) {
        let mut body = json!({"prompt": "fire", "steps": 1, "seed": number, "width": 64, "height": 64});
        match number % 4 {
            0 => Self::check(&self.post("/sdapi/v1/txt2img", &body)["images"][0]),
            1 => {
                body["size"] = json!("64x64");
                Self::check(&self.post("/v1/images/generations", &body)["data"][0]["b64_json"]);
            }
            _ => {
                let job = self.post("/v1/jobs", &body);
                let id = job["id"].as_str().unwrap();
                if number.is_multiple_of(5) {
                    self.server.send("POST", &format!("/v1/jobs/{id}/cancel"), None);
                }
                let end = self.server.end(id);
                let canceled = number.is_multiple_of(5) && end["state"] == "canceled";
                assert!(end["state"] == "done" || canceled, "{end}");
            }
        }
    }
}

/// Every job of a server.
fn all_jobs(server: &TestServer) -> Vec<Value> {
    let mut all = Vec::new();
    loop {
        let page = server.get(&format!("/v1/jobs?limit=500&offset={}", all.len()));
        let page = page["jobs"].as_array().unwrap();
        if page.is_empty() {
            return all;
        }
        all.extend_from_slice(page);
    }
}

#[test]
fn every_request_of_many_clients_is_answered_once() {
    let count = long().unwrap_or(192);
    // A short queue, so that some are refused and come again.
    let server = TestServer::with(|options| options.limits.queue = CLIENTS * 3 / 4);
    let (next, refused, begun) = (AtomicUsize::new(0), AtomicUsize::new(0), Instant::now());
    let warm = Mutex::new(None);
    std::thread::scope(|scope| {
        for _ in 0..CLIENTS {
            scope.spawn(|| {
                let client = Client { server: &server, agent: agent(), refused: &refused };
                loop {
                    let number = next.fetch_add(1, Ordering::Relaxed);
                    if number >= count {
                        break;
                    }
                    client.request(number);
                    if number == count / 10 {
                        *warm.lock().unwrap() = Some(memory("VmRSS"));
                    }
                }
            });
        }
    });
    let (seconds, warm, end) = (begun.elapsed().as_secs_f64(), warm.into_inner().unwrap(), memory("VmRSS"));
    let jobs = all_jobs(&server);
    let seeds: HashSet<_> = jobs.iter().map(|job| job["request"]["seed"].as_u64().unwrap()).collect();
    assert_eq!((jobs.len(), seeds.len()), (count, count), "none is lost, and none is there twice");
    let done: Vec<_> = jobs.iter().filter(|job| job["state"] == "done").collect();
    assert!(done.iter().all(|job| job["images"].as_array().unwrap().len() == 1));
    assert!(jobs.iter().all(|job| job["state"] == "done" || job["state"] == "canceled"));
    let (_, metrics) = server.send("GET", "/metrics", None);
    let finished = format!("ldm_jobs_done_total {}", done.len());
    assert!(metrics.as_str().unwrap().contains(&finished), "each once: {finished}\n{metrics}");
    let wait = |job: &&Value| Some((job["started"].as_f64()? - job["created"].as_f64()?) / 1000.);
    let mut waits: Vec<_> = done.iter().filter_map(wait).collect();
    waits.sort_by(f64::total_cmp);
    println!(
        "{count} requests, {CLIENTS} clients: {seconds:.1} s, waits {:.2} s (p50) and {:.2} s (p95), {} refusals, memory \
         {:.0} MB after a tenth, {end:.0} MB at the end, {:.0} MB at most",
        percentile(&waits, 0.5),
        percentile(&waits, 0.95),
        refused.into_inner(),
        warm.unwrap(),
        memory("VmHWM"),
    );
    if count >= 1000 {
        assert!(end < warm.unwrap() * 1.05 + 10., "memory grows with the number of jobs");
    }
}

/// Images a second of equal requests that wait at once.
fn throughput(batch_size: usize, count: usize) -> f64 {
    let server = TestServer::with(|options| options.batch_size = batch_size);
    server.job(&json!({"prompt": "fire", "steps": 2}));
    let begun = Instant::now();
    let submit = |seed: usize| {
        let body = json!({"prompt": "fire", "steps": 20, "seed": seed});
        server.post("/v1/jobs", &body).1["id"].as_str().unwrap().to_owned()
    };
    let ids: Vec<_> = (0..count).map(submit).collect();
    assert!(ids.iter().all(|id| server.end(id)["state"] == "done"));
    count as f64 / begun.elapsed().as_secs_f64()
}

#[test]
fn images_a_second_in_batches_and_alone() {
    let count = if long().is_some() { 40 } else { 8 };
    let [alone, four] = [1, 4].map(|size| throughput(size, count));
    println!("{alone:.2} images/s one by one, {four:.2} in batches of 4: x {:.2}", four / alone);
    // The short form runs beside other work.
    let least = if long().is_some() { 1. } else { 0.7 };
    assert!(four > least * alone, "a batch costs more than its images alone");
}

#[test]
fn a_request_costs_little_more_than_its_sampling() {
    let count = long().map_or(8, |requests| requests / 10);
    let server = TestServer::new();
    let pipeline = ldm::Pipeline::open(ldm::model_path("emoji".into()).unwrap()).unwrap();
    let client = Client { server: &server, agent: agent(), refused: &AtomicUsize::new(0) };
    let sampled = |seed: usize| {
        let request = ldm::Request::text("fire").seed(seed as u64).steps(2);
        assert!(!pipeline.generate(&request).unwrap().png(0).unwrap().is_empty());
    };
    let served = |seed: usize| {
        let body = json!({"prompt": "fire", "steps": 2, "seed": seed, "size": "64x64"});
        client.post("/v1/images/generations", &body);
    };
    let timed = |work: &dyn Fn(usize), seed: usize| {
        let begun = Instant::now();
        work(seed);
        begun.elapsed().as_secs_f64() * 1000.
    };
    let mut times = [Vec::new(), Vec::new()];
    // By turns, so that a busy machine slows both; the first are not counted.
    for seed in 0..count + 3 {
        let pair = [timed(&sampled, seed), timed(&served, seed)];
        if seed >= 3 {
            times.iter_mut().zip(pair).for_each(|(times, time)| times.push(time));
        }
    }
    let [sampling, serving] = times.map(|mut times| {
        times.sort_by(f64::total_cmp);
        percentile(&times, 0.5)
    });
    let overhead = serving - sampling;
    println!("{count} requests: {sampling:.1} ms sampled, {serving:.1} ms served: {overhead:.1} ms more");
    // The short form runs in debug builds and beside other work.
    let most = if long().is_some() { 5. } else { 60. };
    assert!(overhead < most, "{overhead:.1} ms");
}
