//! The description of the APIs: complete, and true.

use std::collections::BTreeSet;
use std::path::Path;

use serde_json::{Value, json};

use crate::server::{TestServer, agent};

/// All `$ref` of a value.
fn references(value: &Value, found: &mut Vec<String>) {
    match value {
        Value::Object(object) => {
            found.extend(object.get("$ref").and_then(Value::as_str).map(str::to_owned));
            object.values().for_each(|value| references(value, found));
        }
        Value::Array(array) => array.iter().for_each(|value| references(value, found)),
        _ => {}
    }
}

/// The first texts of `.route("PATH"` in the sources of a folder.
fn routed(folder: &Path, found: &mut BTreeSet<String>) {
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            routed(&path, found);
        } else {
            let text = std::fs::read_to_string(&path).unwrap();
            let prefix =
                if path.components().any(|part| part.as_os_str() == "sdapi") { "/sdapi/v1" } else { "" };
            for part in text.split(".route(\"").skip(1) {
                let route = part.split('"').next().unwrap();
                let prefix = if route.starts_with("/internal") { "" } else { prefix };
                found.insert(format!("{prefix}{route}"));
            }
        }
    }
}

#[test]
fn every_reference_resolves() {
    let api = TestServer::new().get("/openapi.json");
    let mut found = Vec::new();
    references(&api, &mut found);
    assert!(found.len() > 20, "{found:?}");
    for reference in found {
        let pointer = reference.strip_prefix('#').unwrap();
        assert!(api.pointer(pointer).is_some(), "{reference}");
    }
}

#[test]
fn every_route_is_described() {
    let api = TestServer::new().get("/openapi.json");
    let mut routes = BTreeSet::new();
    routed(&Path::new(env!("CARGO_MANIFEST_DIR")).join("src"), &mut routes);
    assert!(routes.len() > 35, "{routes:?}");
    let missing: Vec<_> = routes.iter().filter(|route| api["paths"].get(route).is_none()).collect();
    assert!(missing.is_empty(), "{missing:?}");
}

#[test]
fn every_described_operation_exists() {
    let server = TestServer::new();
    let job = server.job(&json!({"steps": 1}));
    let id = job["id"].as_str().unwrap();
    let api = server.get("/openapi.json");
    for (path, item) in api["paths"].as_object().unwrap() {
        for method in item.as_object().unwrap().keys() {
            // The job is needed for the others.
            let id = if method == "delete" { "none" } else { id };
            let url = path.replace("{id}", id).replace("{index}", "0").replace("{name}", "emoji");
            let url = format!("{}{}", server.url, url.replace("{file}", "a.png"));
            let request = ureq::http::Request::builder().method(method.to_uppercase().as_str()).uri(url);
            let request = request.header("content-type", "application/json");
            // No job comes of a body that is not JSON.
            let mut answer = if method == "post" {
                agent().run(request.body("[").unwrap()).unwrap()
            } else {
                agent().run(request.body(()).unwrap()).unwrap()
            };
            let status = answer.status().as_u16();
            let events = answer.headers()["content-type"] == "text/event-stream";
            let text = if events {
                String::new()
            } else {
                String::from_utf8_lossy(&answer.body_mut().read_to_vec().unwrap()).into_owned()
            };
            assert!(status != 405 && !text.contains("no such path"), "{method} {path}: {status} {text}");
        }
    }
}

#[test]
fn answers_have_the_keys_of_their_schemas() {
    let server = TestServer::new();
    let api = server.get("/openapi.json");
    let id = server.job(&json!({"steps": 1}))["id"].as_str().unwrap().to_owned();
    for (path, name) in [
        ("/v1/server".to_owned(), "ServerInfo"),
        ("/v1/models".to_owned(), "ModelList"),
        ("/v1/models/emoji".to_owned(), "Model"),
        ("/v1/jobs".to_owned(), "JobList"),
        (format!("/v1/jobs/{id}"), "JobView"),
    ] {
        let schema = &api["components"]["schemas"][name];
        let mut parts = vec![schema];
        parts.extend(schema["allOf"].as_array().into_iter().flatten());
        let resolved = parts.iter().map(|part| match part["$ref"].as_str() {
            Some(reference) => api.pointer(&reference[1..]).unwrap(),
            None => part,
        });
        let resolved: Vec<_> = resolved.collect();
        let known: BTreeSet<_> = resolved
            .iter()
            .filter_map(|part| part["properties"].as_object())
            .flat_map(|of| of.keys())
            .collect();
        let answer = server.get(&path);
        let keys: BTreeSet<_> = answer.as_object().unwrap().keys().collect();
        assert!(keys.is_subset(&known), "{name}: {:?}", keys.difference(&known));
        for key in resolved.iter().filter_map(|part| part["required"].as_array()).flatten() {
            assert!(!answer[key.as_str().unwrap()].is_null() || name == "Model", "{name}: {key}");
        }
    }
}

#[test]
fn the_page_loads_nothing_from_elsewhere() {
    let server = TestServer::new();
    for (path, kind) in [("/docs", "text/html"), ("/docs.js", "text/javascript"), ("/docs.css", "text/css")] {
        let mut answer = agent().get(format!("{}{path}", server.url)).call().unwrap();
        assert_eq!(answer.status(), 200, "{path}");
        assert!(answer.headers()["content-type"].to_str().unwrap().starts_with(kind));
        let policy = answer.headers()["content-security-policy"].to_str().unwrap().to_owned();
        assert!(policy.contains("script-src 'self'; style-src 'self'"), "{policy}");
        let text = answer.body_mut().read_to_string().unwrap();
        assert!(!text.contains("://") && !text.contains("innerHTML") && !text.contains("style="), "{path}");
    }
}
