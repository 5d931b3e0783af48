//! Files of a tokenizer: locations and formats.

use std::io::Read;
use std::path::{Path, PathBuf};

use flate2::read::GzDecoder;
use ldm_core::{Error, Result, text};
use serde_json::Value;
use tokenizers::Tokenizer;
use tokenizers::models::bpe::Vocab;

use super::{bert, clip};
use crate::TokenizerKind;

/// Limit of unpacked files, ten times the largest published vocabulary, so that a gzipped file cannot exhaust memory.
const LARGEST: u64 = 64 << 20;

/// Opens the tokenizer at `path`; returns its padding token if the folder sets one.
pub(crate) fn open(kind: TokenizerKind, path: &Path) -> Result<(Tokenizer, Option<String>)> {
    if !path.is_dir() {
        return Ok((read_file(kind, path)?, None));
    }
    for folder in [path.to_path_buf(), path.join("tokenizer")] {
        if let Some(tokenizer) = read_folder(kind, &folder)? {
            return Ok((tokenizer, padding(&folder)?));
        }
    }
    let files = match kind {
        TokenizerKind::Bert => "tokenizer.json or vocab.txt",
        TokenizerKind::Clip => "tokenizer.json, vocab.json and merges.txt, or bpe_simple_vocab_16e6.txt.gz",
    };
    Err(Error::format(
        path,
        format!("expected {files} of a {kind} tokenizer, got none; try {}", kind.remedy()),
    ))
}

/// Reads the tokenizer in `folder`, if any.
fn read_folder(kind: TokenizerKind, folder: &Path) -> Result<Option<Tokenizer>> {
    let found = |name: &str| Some(folder.join(name)).filter(|path| path.is_file());
    if let Some(path) = found("tokenizer.json") {
        return read_file(kind, &path).map(Some);
    }
    let lists = match kind {
        TokenizerKind::Bert => ["vocab.txt", "bert-base-uncased-vocab.txt"].as_slice(),
        TokenizerKind::Clip => {
            match (found("vocab.json"), found("merges.txt")) {
                (Some(vocab), Some(merges)) => {
                    return clip::from_vocab(read_vocab(&vocab)?, &read_text(kind, &merges)?, &merges)
                        .map(Some);
                }
                (Some(there), None) => return Err(incomplete(kind, &there, "merges.txt")),
                (None, Some(there)) => return Err(incomplete(kind, &there, "vocab.json")),
                (None, None) => {}
            }
            ["bpe_simple_vocab_16e6.txt.gz", "bpe_simple_vocab_16e6.txt"].as_slice()
        }
    };
    lists.iter().find_map(|name| found(name)).map(|path| read_file(kind, &path)).transpose()
}

fn incomplete(kind: TokenizerKind, there: &Path, missing: &str) -> Error {
    Error::format(there, format!("expected `{missing}` next to it, got none; try {}", kind.remedy()))
}

/// Reads a file: `….json` is a whole tokenizer, anything else a list of words or merges.
fn read_file(kind: TokenizerKind, path: &Path) -> Result<Tokenizer> {
    let text = read_text(kind, path)?;
    if path.extension().is_some_and(|extension| extension == "json") {
        return text
            .parse()
            .map_err(|error| Error::format(path, format!("expected the format of tokenizer.json: {error}")));
    }
    match kind {
        TokenizerKind::Bert => bert::from_words(&text, path),
        TokenizerKind::Clip => clip::from_merges(&text, path),
    }
}

fn read_text(kind: TokenizerKind, path: &Path) -> Result<String> {
    let bytes = std::fs::read(path).map_err(|error| match error.kind() {
        std::io::ErrorKind::NotFound => {
            Error::format(path, format!("expected a {kind} tokenizer, got no file; try {}", kind.remedy()))
        }
        _ => Error::io(path)(error),
    })?;
    let damaged = |message: String| Error::format(path, message);
    let bytes = if bytes.starts_with(&[0x1f, 0x8b]) {
        let mut unpacked = Vec::new();
        let mut reader = GzDecoder::new(bytes.as_slice()).take(LARGEST);
        reader.read_to_end(&mut unpacked).map_err(|error| damaged(format!("expected gzip: {error}")))?;
        unpacked
    } else {
        bytes
    };
    text::decode(&bytes).map_err(damaged)
}

fn read_vocab(path: &Path) -> Result<Vocab> {
    let text = text::read(path)?;
    let vocab: std::collections::HashMap<String, u32> = serde_json::from_str(&text)
        .map_err(|error| Error::format(path, format!("expected a map of tokens to ids: {error}")))?;
    Ok(vocab.into_iter().collect())
}

/// Reads the padding token from transformers' files next to a vocabulary: a token, or a map with its `content`.
fn padding(folder: &Path) -> Result<Option<String>> {
    for name in ["tokenizer_config.json", "special_tokens_map.json"] {
        let path: PathBuf = folder.join(name);
        if !path.is_file() {
            continue;
        }
        let text = text::read(&path)?;
        let value: Value = serde_json::from_str(&text)
            .map_err(|error| Error::format(&path, format!("expected JSON: {error}")))?;
        let token = &value["pad_token"];
        if let Some(token) = token.as_str().or_else(|| token["content"].as_str()) {
            return Ok(Some(token.to_owned()));
        }
    }
    Ok(None)
}
