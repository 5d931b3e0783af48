//! Export of a tokenizer to the files of transformers.

use std::collections::BTreeMap;

use ldm_core::{Error, Result};
use serde_json::{Value, json};
use tokenizers::NormalizerWrapper;

use super::{bert, clip};
use crate::{Tokenizer, TokenizerKind};

impl Tokenizer {
    /// Returns the files of a folder `tokenizer/` for transformers' `CLIPTokenizer` or `BertTokenizer`, by name: the
    /// vocabulary, CLIP's merges, and `tokenizer_config.json` for texts of `max_length` tokens.
    ///
    /// # Errors
    /// [`Error::Invalid`] if the tokenizer differs in form from the published ones: these files cannot express that case
    /// matters, or that there are added tokens.
    pub fn transformers_files(&self, max_length: i64) -> Result<Vec<(&'static str, String)>> {
        let kind = self.kind();
        let unsupported = || {
            Error::invalid(format!("{kind} tokenizer: expected the form of the published ones, got another"))
        };
        let whole: Value = serde_json::to_value(self.inner()).map_err(|_| unsupported())?;
        let model = &whole["model"];
        let vocab = model["vocab"].as_object().ok_or_else(unsupported)?;
        if vocab.len() != self.inner().get_vocab_size(true) || whole["normalizer"] != normalizer(kind) {
            return Err(unsupported());
        }
        let by_id: BTreeMap<u64, &str> =
            vocab.iter().filter_map(|(token, id)| Some((id.as_u64()?, token.as_str()))).collect();
        let token =
            |id: u32| by_id.get(&u64::from(id)).map(|token| (*token).to_owned()).ok_or_else(unsupported);
        let [start, end, pad] = self.marks();
        let (start, end, pad) = (token(start)?, token(end)?, token(pad)?);
        let mut files = Vec::new();
        let config = match kind {
            TokenizerKind::Clip => {
                let ordered: Vec<String> =
                    by_id.iter().map(|(id, token)| format!("{}:{id}", json!(token))).collect();
                files.push(("vocab.json", format!("{{{}}}", ordered.join(","))));
                files.push(("merges.txt", merges(model).ok_or_else(unsupported)?));
                json!({
                    "add_prefix_space": false, "bos_token": start, "do_lower_case": true, "eos_token": end,
                    "errors": "replace", "model_max_length": max_length, "pad_token": pad,
                    "tokenizer_class": "CLIPTokenizer", "unk_token": end,
                })
            }
            TokenizerKind::Bert => {
                if by_id.keys().copied().ne(0..by_id.len() as u64) {
                    return Err(unsupported());
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

/// The normalizer of the published tokenizers, which transformers assumes for these files.
fn normalizer(kind: TokenizerKind) -> Value {
    let normalizer = match kind {
        TokenizerKind::Bert => NormalizerWrapper::from(bert::normalizer()),
        TokenizerKind::Clip => clip::normalizer().expect("the pattern is valid").into(),
    };
    serde_json::to_value(normalizer).expect("a normalizer is valid JSON")
}

/// One merge per line, from pairs or strings of two words.
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
