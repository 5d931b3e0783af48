//! Learned words of a model, and their places in texts.

use std::ops::Range;

use ldm_core::{Error, Result};
use tch::Tensor;

use super::embedding::TextualInversion;

/// The learned words of a model; their tokens are numbered from the end of its vocabulary on.
#[derive(Debug)]
pub(crate) struct LearnedWords {
    words: Vec<TextualInversion>,
    vocab_size: i64,
    /// The most tokens of a text.
    room: i64,
}

/// An occurrence of a learned word in a text.
pub(crate) struct LearnedWord {
    pub(crate) bytes: Range<usize>,
    pub(crate) ids: Range<i64>,
}

impl LearnedWords {
    pub(crate) fn new(vocab_size: i64, max_length: i64) -> Self {
        Self { words: Vec::new(), vocab_size, room: max_length - 2 }
    }

    /// Adds a word with vectors of `width`.
    ///
    /// # Errors
    /// [`Error::Invalid`] for another width, more vectors than a text has room for, and a word that exists.
    pub(crate) fn add(&mut self, word: TextualInversion, width: i64) -> Result<()> {
        let refuse = |expected: String, got: String| {
            Err(Error::expected(format!("embedding `{}`", word.token), expected, got))
        };
        let size = word.vectors.size();
        if size.len() != 2 || size[1] != width || size[0] < 1 {
            return refuse(
                format!("vectors [n, {width}], as wide as the model's tokens"),
                format!("{size:?}"),
            );
        }
        if size[0] > self.room {
            return refuse(
                format!("at most {} vectors, the tokens of a text", self.room),
                size[0].to_string(),
            );
        }
        if self.words.iter().any(|other| same(&other.token, &word.token)) {
            return refuse("a new word".into(), "one that was added before".into());
        }
        self.words.push(word);
        Ok(())
    }

    /// The words, in the order of their numbers.
    pub(crate) fn tokens(&self) -> Vec<String> {
        self.words.iter().map(|word| word.token.clone()).collect()
    }

    /// The vectors of all words, `[n, D]`, in the order of their numbers.
    pub(crate) fn table(&self) -> Option<Tensor> {
        let vectors: Vec<&Tensor> = self.words.iter().map(|word| &word.vectors).collect();
        (!vectors.is_empty()).then(|| Tensor::cat(&vectors, 0))
    }

    /// Finds the words in a text, from left to right, the longest first. Case does not matter, as to CLIP, and a word
    /// that begins or ends with a letter or digit is not found within another word.
    pub(crate) fn find(&self, text: &str) -> Vec<LearnedWord> {
        let mut found = Vec::new();
        let mut at = 0;
        while let Some(first) = text[at..].chars().next().filter(|_| !self.words.is_empty()) {
            let longest = self.at(text, at);
            at = longest.as_ref().map_or(at + first.len_utf8(), |word| word.bytes.end);
            found.extend(longest);
        }
        found
    }

    /// Finds the longest word at a place.
    fn at(&self, text: &str, at: usize) -> Option<LearnedWord> {
        let mut first = self.vocab_size;
        let mut longest: Option<LearnedWord> = None;
        for word in &self.words {
            let ids = first..first + word.vectors.size()[0];
            first = ids.end;
            let Some(length) = prefix(&text[at..], &word.token) else { continue };
            let bytes = at..at + length;
            if !within(text, &bytes) && longest.as_ref().is_none_or(|other| other.bytes.end < bytes.end) {
                longest = Some(LearnedWord { bytes, ids });
            }
        }
        longest
    }
}

/// Returns true if a part of a text is part of a longer word.
fn within(text: &str, part: &Range<usize>) -> bool {
    let joined = |left: Option<char>, right: Option<char>| {
        left.is_some_and(char::is_alphanumeric) && right.is_some_and(char::is_alphanumeric)
    };
    let [before, inside, after] = [&text[..part.start], &text[part.clone()], &text[part.end..]];
    joined(before.chars().next_back(), inside.chars().next())
        || joined(inside.chars().next_back(), after.chars().next())
}

/// Returns the length in bytes of `word` at the start of `text`, in any case.
fn prefix(text: &str, word: &str) -> Option<usize> {
    let mut rest = text.chars();
    for expected in word.chars() {
        let found = rest.next()?;
        if !found.to_lowercase().eq(expected.to_lowercase()) {
            return None;
        }
    }
    Some(text.len() - rest.as_str().len())
}

fn same(left: &str, right: &str) -> bool {
    prefix(left, right) == Some(left.len())
}
