//! `cargo xtask` on fake machines: a PATH of scripts, a cache and a checkout in a temporary folder.
#![allow(clippy::unwrap_used, reason = "tests may")]

mod failures;
mod installs;
mod links;
mod machine;
mod tasks;
