//! Tests of the server over HTTP, with the emoji model.

#![allow(clippy::unwrap_used, reason = "clippy exempts test functions only, not their helpers")]

mod faults;
mod jobs;
mod limits;
mod load;
mod openai;
mod openapi;
mod sdapi;
mod security;
mod server;
mod storage;
