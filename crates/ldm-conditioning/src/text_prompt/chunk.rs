//! Chunks: the tokens of one pass through a text model, with their weights.

use ldm_core::Result;

use super::learned::LearnedWords;
use super::options::PromptSyntax;
use super::weights::{Fragment, parse};
use crate::Tokenizer;
use crate::tokenizer::from_byte;

/// A chunk that is full ends after a comma among its last 20 tokens, the default of AUTOMATIC1111
/// (`comma_padding_backtrack`).
const BACKTRACK: usize = 20;
/// The token of a comma.
const COMMA: &str = ",</w>";

/// The tokens of one pass, as many as the model's length, and a weight for each.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Chunk {
    pub(crate) ids: Vec<i64>,
    pub(crate) weights: Vec<f32>,
}

/// Tokens that stay together: one of the vocabulary, or those of a learned word.
struct TokenGroup {
    ids: Vec<i64>,
    /// Its place in the text, in bytes.
    at: usize,
}

/// Converts texts to chunks for one model.
#[derive(Debug)]
pub(crate) struct Chunker<'a> {
    pub(crate) tokenizer: &'a Tokenizer,
    pub(crate) words: &'a LearnedWords,
    /// The model's length, with start and end token.
    pub(crate) length: usize,
}

impl Chunker<'_> {
    /// Returns the chunks of a text, at least one; a plain text has one.
    ///
    /// # Errors
    /// [`ldm_core::Error::Invalid`] for a weight that is no number.
    pub(crate) fn chunks(&self, text: &str, syntax: PromptSyntax) -> Result<Vec<Chunk>> {
        match syntax {
            PromptSyntax::Plain => {
                let ids: Vec<i64> = self.groups(text)?.into_iter().flat_map(|group| group.ids).collect();
                let mut chunk = Chunk { ids, weights: Vec::new() };
                chunk.ids.truncate(self.room());
                chunk.weights = vec![1.; chunk.ids.len()];
                Ok(vec![self.padded(chunk)])
            }
            PromptSyntax::Weights => self.weighted(text),
        }
    }

    /// Returns the part of a plain text that is truncated.
    pub(crate) fn cut(&self, text: &str) -> Result<Option<String>> {
        let mut room = self.room();
        for group in self.groups(text)? {
            if group.ids.len() > room {
                return Ok(Some(from_byte(text, group.at)));
            }
            room -= group.ids.len();
        }
        Ok(None)
    }

    /// Returns a chunk without text.
    pub(crate) fn empty(&self) -> Chunk {
        self.padded(Chunk { ids: Vec::new(), weights: Vec::new() })
    }

    fn room(&self) -> usize {
        self.length - 2
    }

    /// AUTOMATIC1111 `sd_hijack_clip.py` `tokenize_line`.
    fn weighted(&self, text: &str) -> Result<Vec<Chunk>> {
        let mut open =
            OpenChunk { room: self.room(), comma: self.tokenizer.id(COMMA), ..OpenChunk::default() };
        for fragment in parse(text)? {
            match fragment {
                Fragment::Break => open.close(),
                Fragment::Text(text, weight) => {
                    self.groups(&text)?.into_iter().for_each(|group| open.push(&group.ids, weight as f32));
                }
            }
        }
        if !open.ids.is_empty() || open.full.is_empty() {
            open.close();
        }
        Ok(open.full.into_iter().map(|chunk| self.padded(chunk)).collect())
    }

    /// Returns the tokens of a text, in which learned words are one group each.
    fn groups(&self, text: &str) -> Result<Vec<TokenGroup>> {
        let mut groups = Vec::new();
        let plain = |from: usize, to: usize, groups: &mut Vec<TokenGroup>| -> Result<()> {
            for (id, at) in self.tokenizer.tokens(&text[from..to])? {
                groups.push(TokenGroup { ids: vec![id], at: from + at });
            }
            Ok(())
        };
        let mut from = 0;
        for found in self.words.find(text) {
            plain(from, found.bytes.start, &mut groups)?;
            groups.push(TokenGroup { ids: found.ids.collect(), at: found.bytes.start });
            from = found.bytes.end;
        }
        plain(from, text.len(), &mut groups)?;
        Ok(groups)
    }

    /// Adds start and end token and padding to a chunk, all of weight 1.
    fn padded(&self, chunk: Chunk) -> Chunk {
        let [start, end, pad] = self.tokenizer.marks().map(i64::from);
        let mut ids = vec![start];
        ids.extend(chunk.ids);
        ids.push(end);
        ids.resize(self.length, pad);
        let mut weights = vec![1.];
        weights.extend(chunk.weights);
        weights.resize(self.length, 1.);
        Chunk { ids, weights }
    }
}

/// The chunk that is being filled, and those before it.
#[derive(Default)]
struct OpenChunk {
    room: usize,
    comma: Option<i64>,
    full: Vec<Chunk>,
    ids: Vec<i64>,
    weights: Vec<f32>,
    /// The place of the last comma.
    last_comma: Option<usize>,
}

impl OpenChunk {
    fn push(&mut self, ids: &[i64], weight: f32) {
        let is_full = self.ids.len() == self.room;
        if self.comma.is_some() && ids.first().copied() == self.comma {
            self.last_comma = Some(self.ids.len());
        } else if let Some(comma) = self.last_comma.filter(|comma| is_full && self.room - comma <= BACKTRACK)
        {
            let (ids, weights) = (self.ids.split_off(comma + 1), self.weights.split_off(comma + 1));
            self.close();
            (self.ids, self.weights) = (ids, weights);
        }
        if self.ids.len() + ids.len() > self.room {
            self.close();
        }
        self.ids.extend_from_slice(ids);
        self.weights.resize(self.ids.len(), weight);
    }

    fn close(&mut self) {
        let (ids, weights) = (std::mem::take(&mut self.ids), std::mem::take(&mut self.weights));
        self.full.push(Chunk { ids, weights });
        self.last_comma = None;
    }
}
