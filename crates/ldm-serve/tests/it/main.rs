//! Tests of the server over HTTP, with the emoji model.

mod jobs;
mod server;
