//! BERT's tokenizer from its vocabulary.

use std::path::Path;

use ldm_core::{Error, Result};
use tokenizers::models::bpe::Vocab;
use tokenizers::models::wordpiece::WordPiece;
use tokenizers::normalizers::BertNormalizer;
use tokenizers::pre_tokenizers::bert::BertPreTokenizer;
use tokenizers::{AddedToken, Tokenizer};

/// Builds the uncased WordPiece tokenizer of `words`, one per line, in the order of ids.
pub(crate) fn from_words(words: &str, path: &Path) -> Result<Tokenizer> {
    let damaged =
        |error: tokenizers::Error| Error::format(path, format!("expected a BERT vocabulary: {error}"));
    let vocab: Vocab = words.lines().map(str::to_owned).zip(0..).collect();
    let marks = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"];
    if let Some(missing) = marks.into_iter().find(|mark| !vocab.contains_key(*mark)) {
        return Err(Error::format(path, format!("expected a BERT vocabulary, got no line `{missing}`")));
    }
    let model = WordPiece::builder().vocab(vocab).unk_token("[UNK]".into()).build().map_err(damaged)?;
    let mut tokenizer = Tokenizer::new(model);
    tokenizer.with_normalizer(Some(normalizer())).map_err(damaged)?;
    tokenizer.with_pre_tokenizer(Some(BertPreTokenizer));
    let marks = marks.map(|mark| AddedToken::from(mark, true));
    tokenizer.add_special_tokens(marks).map_err(damaged)?;
    Ok(tokenizer)
}

/// Cleans, separates CJK characters, and lower-cases, which strips accents.
pub(crate) fn normalizer() -> BertNormalizer {
    BertNormalizer::new(true, true, None, true)
}
