//! Whole-stage benchmarks of ldm: what they share.
