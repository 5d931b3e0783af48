//! CLIP's tokenizer from its merges, and optionally a vocabulary file.

use std::path::Path;

use ldm_core::{Error, Result};
use tokenizers::models::bpe::{BPE, Merges, Vocab};
use tokenizers::normalizers::replace::ReplacePattern;
use tokenizers::normalizers::{Lowercase, NFC, Replace, Sequence as Normalizers};
use tokenizers::pre_tokenizers::byte_level::ByteLevel;
use tokenizers::pre_tokenizers::sequence::Sequence as PreTokenizers;
use tokenizers::pre_tokenizers::split::{Split, SplitPattern};
use tokenizers::tokenizer::normalizer::SplitDelimiterBehavior;
use tokenizers::{AddedToken, Tokenizer};

use crate::TokenizerKind;

const WORD_END: &str = "</w>";
/// OpenAI's list has more merges than CLIP uses: 49152 tokens, less 256 bytes and 256 word-final bytes, and two special
/// tokens (openai/CLIP `simple_tokenizer.py:67`).
const MERGES: usize = 49152 - 256 - 2;
/// Special tokens, English endings, words, single digits, the rest.
const WORDS: &str =
    r"<\|startoftext\|>|<\|endoftext\|>|'s|'t|'re|'ve|'m|'ll|'d|[\p{L}]+|[\p{N}]|[^\s\p{L}\p{N}]+";

/// Builds the tokenizer of OpenAI's `bpe_simple_vocab_16e6.txt` or of transformers' `merges.txt`, which define the
/// vocabulary.
pub(crate) fn from_merges(text: &str, path: &Path) -> Result<Tokenizer> {
    let merges = parse_merges(text, path)?;
    let bytes = bytes();
    let ends = bytes.iter().map(|byte| format!("{byte}{WORD_END}"));
    let merged = merges.iter().map(|(left, right)| format!("{left}{right}"));
    let [start, end, _] = TokenizerKind::Clip.marks().map(str::to_owned);
    let tokens = bytes.iter().map(char::to_string).chain(ends).chain(merged).chain([start, end]);
    build(tokens.zip(0..).collect(), merges, path)
}

/// Builds the tokenizer of transformers' `vocab.json` and `merges.txt`.
pub(crate) fn from_vocab(vocab: Vocab, merges: &str, path: &Path) -> Result<Tokenizer> {
    build(vocab, parse_merges(merges, path)?, path)
}

/// Parses a line with the version, then one merge per line.
fn parse_merges(text: &str, path: &Path) -> Result<Merges> {
    let merge = |(index, line): (usize, &str)| match line.split_whitespace().collect::<Vec<_>>()[..] {
        [left, right] => Ok((left.to_owned(), right.to_owned())),
        _ => {
            Err(Error::format(path, format!("line {}: expected a merge of two parts, got {line}", index + 1)))
        }
    };
    let lines = text.lines().enumerate().skip(1).filter(|(_, line)| !line.is_empty());
    lines.take(MERGES).map(merge).collect()
}

fn build(vocab: Vocab, merges: Merges, path: &Path) -> Result<Tokenizer> {
    let damaged =
        |error: tokenizers::Error| Error::format(path, format!("expected a CLIP vocabulary: {error}"));
    let [start, end, _] = TokenizerKind::Clip.marks();
    // Adding them below would create missing ones, as tokens the model does not have.
    if let Some(missing) = [start, end].into_iter().find(|mark| !vocab.contains_key(*mark)) {
        return Err(Error::format(
            path,
            format!("expected a CLIP vocabulary, got none with the token `{missing}`"),
        ));
    }
    let model = BPE::builder()
        .vocab_and_merges(vocab, merges)
        .unk_token(end.into())
        .continuing_subword_prefix(String::new())
        .end_of_word_suffix(WORD_END.into())
        .build()
        .map_err(damaged)?;
    let mut tokenizer = Tokenizer::new(model);
    tokenizer.with_normalizer(Some(normalizer().map_err(damaged)?)).map_err(damaged)?;
    let words = Split::new(SplitPattern::Regex(WORDS.into()), SplitDelimiterBehavior::Removed, true)
        .map_err(damaged)?;
    let bytes = ByteLevel::new(false, true, true);
    tokenizer.with_pre_tokenizer(Some(PreTokenizers::new(vec![words.into(), bytes.into()])));
    let marks = [start, end].map(|mark| AddedToken::from(mark, true));
    tokenizer.add_special_tokens(marks).map_err(damaged)?;
    Ok(tokenizer)
}

/// NFC, single spaces, lower case.
pub(crate) fn normalizer() -> tokenizers::Result<Normalizers> {
    let spaces = Replace::new(ReplacePattern::Regex(r"\s+".into()), " ")?;
    Ok(Normalizers::new(vec![NFC.into(), spaces.into(), Lowercase.into()]))
}

/// A printable character for each byte, in the order of ids: the 188 bytes printable in Latin-1, then the others as the
/// characters from 256 on (Radford et al. 2019, §2.2).
fn bytes() -> Vec<char> {
    let visible = ('!'..='~').chain('¡'..='¬').chain('®'..='ÿ');
    let others = (256..).take(256 - 188).map(|code| char::from_u32(code).expect("below the surrogates"));
    visible.chain(others).collect()
}
