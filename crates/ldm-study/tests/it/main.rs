//! The tests of `ldm-study`.

#![allow(clippy::unwrap_used, reason = "clippy exempts test functions only, not their helpers")]

mod evaluation;
mod paired;
mod rate_distortion;
mod retrieval;
mod study;
