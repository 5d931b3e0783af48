//! A tokenizer's files as transformers reads them.

use std::collections::BTreeMap;

use ldm_core::{Error, Result};
use serde_json::{Value, json};
use tokenizers::NormalizerWrapper;

use crate::{Tokenizer, TokenizerKind, bert_tokenizer, clip_tokenizer};

impl Tokenizer {
    /// The files of a folder `tokenizer/` that transformers' `CLIPTokenizer` or `BertTokenizer` opens, by name: the
    /// vocabulary, CLIP's merges, and `tokenizer_config.json` for texts of `max_length` tokens.
    ///
    /// # Errors
    /// [`Error::Invalid`] when the tokenizer is of another form than the published ones: these files cannot say that
    /// upper case counts, or that there are words beside the vocabulary.
    pub fn transformers_files(&self, max_length: i64) -> Result<Vec<(&'static str, String)>> {
        let kind = self.kind();
        let odd =
            || Error::invalid(format!("this {kind} tokenizer is not of the form that transformers writes"));
        let whole: Value = serde_json::to_value(self.inner()).map_err(|_| odd())?;
        let model = &whole["model"];
        let vocab = model["vocab"].as_object().ok_or_else(odd)?;
        if vocab.len() != self.inner().get_vocab_size(true) || whole["normalizer"] != normalizer(kind) {
            return Err(odd());
        }
        let by_id: BTreeMap<u64, &str> =
            vocab.iter().filter_map(|(token, id)| Some((id.as_u64()?, token.as_str()))).collect();
        let token = |id: u32| by_id.get(&u64::from(id)).map(|token| (*token).to_owned()).ok_or_else(odd);
        let [start, end, pad] = self.marks();
        let (start, end, pad) = (token(start)?, token(end)?, token(pad)?);
        let mut files = Vec::new();
        let config = match kind {
            TokenizerKind::Clip => {
                let ordered: Vec<String> =
                    by_id.iter().map(|(id, token)| format!("{}:{id}", json!(token))).collect();
                files.push(("vocab.json", format!("{{{}}}", ordered.join(","))));
                files.push(("merges.txt", merges(model).ok_or_else(odd)?));
                json!({
                    "add_prefix_space": false, "bos_token": start, "do_lower_case": true, "eos_token": end,
                    "errors": "replace", "model_max_length": max_length, "pad_token": pad,
                    "tokenizer_class": "CLIPTokenizer", "unk_token": end,
                })
            }
            TokenizerKind::Bert => {
                if by_id.keys().copied().ne(0..by_id.len() as u64) {
                    return Err(odd());
                }
                files.push(("vocab.txt", by_id.values().flat_map(|token| [token, "\n"]).collect()));
                json!({
                    "cls_token": start, "do_lower_case": true, "mask_token": "[MASK]", "model_max_length": max_length,
                    "pad_token": pad, "sep_token": end, "tokenizer_class": "BertTokenizer", "unk_token": "[UNK]",
                })
            }
        };
        files.push(("tokenizer_config.json", format!("{config:#}\n")));
        Ok(files)
    }
}

/// What the published tokenizers make of a text first, which is how transformers reads these files.
fn normalizer(kind: TokenizerKind) -> Value {
    let normalizer = match kind {
        TokenizerKind::Bert => NormalizerWrapper::from(bert_tokenizer::normalizer()),
        TokenizerKind::Clip => clip_tokenizer::normalizer().expect("its pattern is right").into(),
    };
    serde_json::to_value(normalizer).expect("plain words")
}

/// A pair a line; they are written as pairs or as texts of two words.
fn merges(model: &Value) -> Option<String> {
    let mut text = "#version: 0.2\n".to_owned();
    for merge in model["merges"].as_array()? {
        match merge.as_str() {
            Some(pair) => text.push_str(pair),
            None => text.extend([merge[0].as_str()?, " ", merge[1].as_str()?]),
        }
        text.push('\n');
    }
    Some(text)
}
