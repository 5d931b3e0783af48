//! Weights: checkpoints of every kind, read without running code and loaded strictly.
