//! Texts to tokens.

use std::path::Path;

use ldm_core::{Error, Result};
use tch::Tensor;

use crate::TokenizerKind;
use crate::tokenizer_files::open;

/// Makes tokens of texts as the reference's tokenizers do.
///
/// Its ids are those of transformers' `BertTokenizer` (`bert-base-uncased`) and `CLIPTokenizer`
/// (`openai/clip-vit-large-patch14`) as of transformers 5, which are the "fast" ones of earlier releases.
///
/// The reference's Stable Diffusion named `CLIPTokenizer` when that was another one, which differed in rare characters.
/// With `ftfy` beside it, as in the reference's environment, it mended text first: letters decoded wrongly, HTML's
/// entities, curly quotes, ligatures, full-width letters. Without, it removed control characters and set CJK characters
/// apart. Both are left out here, as in transformers today.
#[derive(Debug, Clone)]
pub struct Tokenizer {
    kind: TokenizerKind,
    inner: tokenizers::Tokenizer,
    start: u32,
    end: u32,
    pad: u32,
}

/// A batch of texts as tokens.
#[derive(Debug)]
pub struct Encoding {
    /// `[B, L]` i64 on the CPU.
    pub ids: Tensor,
    /// Of each text, the part that did not fit.
    pub cut: Vec<Option<String>>,
}

impl Tokenizer {
    /// Reads a tokenizer from a folder or a file.
    ///
    /// A folder holds `tokenizer.json`; or for CLIP `vocab.json` and `merges.txt`, or OpenAI's
    /// `bpe_simple_vocab_16e6.txt.gz`; or for BERT `vocab.txt` or `bert-base-uncased-vocab.txt`; or a folder
    /// `tokenizer` with one of these, as models of diffusers do. A file is `tokenizer.json`, BERT's list of words, or
    /// CLIP's list of merges, packed by gzip or not.
    ///
    /// # Errors
    /// When nothing of that kind is there, with what to type to get it; when a file is damaged or of another kind.
    pub fn open(kind: TokenizerKind, path: impl AsRef<Path>) -> Result<Self> {
        let path = path.as_ref();
        let (mut inner, pad) = open(kind, path)?;
        // A file may say both; they are arguments here.
        inner.with_padding(None);
        inner.with_truncation(None).expect("no truncation cannot be wrong");
        let [start, end, default_pad] = kind.marks();
        let id = |token: &str| {
            inner.token_to_id(token).ok_or_else(|| {
                Error::format(path, format!("not a {kind} tokenizer: it has no token `{token}`"))
            })
        };
        let (start, end, pad) = (id(start)?, id(end)?, id(pad.as_deref().unwrap_or(default_pad))?);
        Ok(Self { kind, inner, start, end, pad })
    }

    /// Which tokenizer it is.
    pub fn kind(&self) -> TokenizerKind {
        self.kind
    }

    /// The tokenizer itself.
    pub(crate) fn inner(&self) -> &tokenizers::Tokenizer {
        &self.inner
    }

    /// The tokens that begin a text, end it, and fill it up.
    pub(crate) fn marks(&self) -> [u32; 3] {
        [self.start, self.end, self.pad]
    }

    /// One more than the greatest id: the number of its tokens, with those that a list leaves out.
    pub fn vocab_size(&self) -> i64 {
        self.inner.get_vocab(true).into_values().max().map_or(0, |id| i64::from(id) + 1)
    }

    /// Texts to `max_length` tokens each: the beginning's mark, the text, cut where it is too long, the end's mark,
    /// padding.
    ///
    /// # Errors
    /// When the tokenizer cannot read a text, which none of the published ones does.
    ///
    /// # Panics
    /// When `max_length` has no room for both marks.
    pub fn encode<S: AsRef<str>>(&self, texts: &[S], max_length: usize) -> Result<Encoding> {
        assert!(max_length >= 2, "room for the marks of beginning and end");
        let mut ids = Vec::with_capacity(texts.len() * max_length);
        let mut cut = Vec::with_capacity(texts.len());
        for text in texts {
            let text = text.as_ref();
            let encoding = self
                .inner
                .encode(text, false)
                .map_err(|error| Error::invalid(format!("text `{text}` cannot be tokenized: {error}")))?;
            let room = max_length - 2;
            let all = encoding.get_ids();
            let kept = &all[..all.len().min(room)];
            ids.push(i64::from(self.start));
            ids.extend(kept.iter().copied().map(i64::from));
            ids.push(i64::from(self.end));
            ids.extend(std::iter::repeat_n(i64::from(self.pad), room - kept.len()));
            cut.push(encoding.get_offsets().get(room).map(|(from, _)| from_byte(text, *from)));
        }
        let ids = Tensor::from_slice(&ids).view([texts.len() as i64, max_length as i64]);
        Ok(Encoding { ids, cut })
    }
}

/// The text from the character that byte `from` is of: a token may begin within one.
fn from_byte(text: &str, from: usize) -> String {
    text[text.floor_char_boundary(from)..].trim().to_owned()
}
