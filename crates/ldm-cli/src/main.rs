//! The `ldm` command.

fn main() {}
