//! Models: loading, sampling, guidance, conditions, conversion, parity with CompVis and diffusers.

#![allow(clippy::unwrap_used)] // outside `#[test]` functions too a panic is a failed test

mod blend;
mod classifier;
mod classifier_config;
mod conditions;
mod control;
mod convert;
mod detect;
mod folders;
mod generate;
mod init;
mod large;
mod lora;
mod lycoris;
mod official;
mod overrides;
mod parity;
mod recordings;
mod schedulers;
mod skip_init;
mod tiny_model;
