//! Texts of prompts: weights, chunks, learned words.

pub(crate) mod chunk;
pub(crate) mod embedding;
pub(crate) mod learned;
pub(crate) mod options;
pub(crate) mod weights;
