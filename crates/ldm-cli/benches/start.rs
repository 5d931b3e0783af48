//! Start-up time of the program, mostly loading libtorch.

#![allow(missing_docs, reason = "criterion's macro makes a function without any")]

use std::process::Command;

use criterion::{Criterion, criterion_group, criterion_main};

fn start(criterion: &mut Criterion) {
    criterion.bench_function("start/--version", |bencher| {
        bencher.iter(|| Command::new(env!("CARGO_BIN_EXE_ldm")).arg("--version").output());
    });
}

criterion_group! {
    name = benches;
    config = Criterion::default().sample_size(10);
    targets = start
}
criterion_main!(benches);
