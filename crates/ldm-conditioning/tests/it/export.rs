//! Export of tokenizers to the files of transformers.
//!
//! `golden/export.json` holds small exported tokenizers and the ids of transformers with them. To regenerate it:
//!
//!     LDM_KEEP_EXPORT=FOLDER cargo test -p ldm-conditioning --test it export
//!     python crates/ldm-conditioning/tests/golden/generate_export.py FOLDER

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use ldm_conditioning::{Tokenizer, TokenizerKind};
use ldm_testing::shared_data;
use serde::Deserialize;

use crate::golden;

const LENGTH: usize = 12;
/// Merges in CLIP's format.
const MERGES: &str = "#version: 0.2\nc a\nca t</w>\nt h\nth e</w>\ni n\nin g</w>\nâ Ģ\n";
const WORDS: &str =
    "[PAD]\n[UNK]\n[CLS]\n[SEP]\n[MASK]\ncat\n##s\nthe\ncafe\n,\n!\nsing\n##ing\n猫\n'\na\n1\n##2\n";

#[derive(Deserialize)]
struct Golden {
    texts: Vec<String>,
    clip: Case,
    bert: Case,
}

/// Exported files, and the ids of transformers with them.
#[derive(Deserialize)]
struct Case {
    files: BTreeMap<String, String>,
    ids: Vec<Vec<i64>>,
}

fn small(kind: TokenizerKind, folder: &Path) -> Tokenizer {
    let (name, text) = match kind {
        TokenizerKind::Clip => ("list", MERGES),
        TokenizerKind::Bert => ("words", WORDS),
    };
    let path = folder.join(name);
    fs::write(&path, text).unwrap();
    Tokenizer::open(kind, path).unwrap()
}

fn write(tokenizer: &Tokenizer, length: usize, folder: &Path) -> BTreeMap<String, String> {
    fs::create_dir_all(folder).unwrap();
    let files = tokenizer.transformers_files(length as i64).unwrap();
    for (name, text) in &files {
        fs::write(folder.join(name), text).unwrap();
    }
    files.into_iter().map(|(name, text)| (name.to_owned(), text)).collect()
}

fn rows(tokenizer: &Tokenizer, texts: &[String], length: usize) -> Vec<Vec<i64>> {
    Vec::try_from(&tokenizer.encode(texts, length).unwrap().ids).unwrap()
}

#[test]
fn ids_equal_transformers() {
    let golden = golden("export.json");
    let temporary = tempfile::tempdir().unwrap();
    let output = std::env::var_os("LDM_KEEP_EXPORT").map(PathBuf::from);
    let folder = output.clone().unwrap_or(temporary.path().to_path_buf());
    let mut written = BTreeMap::new();
    for kind in [TokenizerKind::Clip, TokenizerKind::Bert] {
        let tokenizer = small(kind, temporary.path());
        let files = write(&tokenizer, LENGTH, &folder.join(kind.to_string()));
        written.insert(kind.to_string(), (tokenizer, files));
    }
    if output.is_some() {
        export_published(&folder);
        return; // the golden file is regenerated from these
    }
    let Golden { texts, clip, bert } = serde_json::from_str(&fs::read_to_string(golden).unwrap()).unwrap();
    for (kind, case) in [(TokenizerKind::Clip, clip), (TokenizerKind::Bert, bert)] {
        let (tokenizer, files) = &written[&kind.to_string()];
        assert_eq!(files, &case.files, "{kind}");
        assert_eq!(rows(tokenizer, &texts, LENGTH), case.ids, "{kind}");
        // And back: the exported files open here and export the same.
        let again = Tokenizer::open(kind, folder.join(kind.to_string())).unwrap();
        assert_eq!(rows(&again, &texts, LENGTH), case.ids, "{kind} again");
        assert_eq!(again.vocab_size(), tokenizer.vocab_size());
        assert_eq!(write(&again, LENGTH, &folder.join("again")), case.files, "{kind} again");
    }
}

/// Exports the published tokenizers too, for the script, which runs transformers on all prompts.
fn export_published(folder: &Path) {
    let Some(data) = shared_data().map(|data| data.join("tokenizers")) else { return };
    for kind in [TokenizerKind::Clip, TokenizerKind::Bert] {
        let tokenizer = Tokenizer::open(kind, &data).unwrap();
        write(&tokenizer, 77, &folder.join(format!("published-{kind}")));
    }
}

/// The padding token of a folder is exported.
#[test]
fn padding_is_exported() {
    let folder = tempfile::tempdir().unwrap();
    let files = write(&small(TokenizerKind::Clip, folder.path()), LENGTH, &folder.path().join("own"));
    fs::remove_file(folder.path().join("own/tokenizer_config.json")).unwrap();
    fs::write(folder.path().join("own/special_tokens_map.json"), r#"{"pad_token": "!"}"#).unwrap();
    let other = Tokenizer::open(TokenizerKind::Clip, folder.path().join("own")).unwrap();
    let changed = write(&other, LENGTH, &folder.path().join("changed"));
    let config: serde_json::Value = serde_json::from_str(&changed["tokenizer_config.json"]).unwrap();
    assert_eq!(
        (config["pad_token"].as_str(), config["eos_token"].as_str()),
        (Some("!"), Some("<|endoftext|>"))
    );
    assert_eq!(changed["vocab.json"], files["vocab.json"]);
    let again = Tokenizer::open(TokenizerKind::Clip, folder.path().join("changed")).unwrap();
    assert_eq!(rows(&again, &["cat".into()], 4), [[519, 513, 520, 0]]);
}

/// The error about a `tokenizer.json` in BERT's format with a change.
fn export_of(folder: &Path, change: impl Fn(&mut serde_json::Value)) -> String {
    let mut json = serde_json::json!({
        "version": "1.0", "truncation": null, "padding": null, "added_tokens": [], "post_processor": null, "decoder": null,
        "normalizer": {"type": "BertNormalizer", "clean_text": true, "handle_chinese_chars": true,
            "strip_accents": null, "lowercase": true},
        "pre_tokenizer": {"type": "BertPreTokenizer"},
        "model": {"type": "WordPiece", "unk_token": "[UNK]", "continuing_subword_prefix": "##",
            "max_input_chars_per_word": 100,
            "vocab": {"[PAD]": 0, "[UNK]": 1, "[CLS]": 2, "[SEP]": 3, "cat": 4, "a": 5}},
    });
    change(&mut json);
    let path = folder.join("tokenizer.json");
    fs::write(&path, json.to_string()).unwrap();
    let tokenizer = Tokenizer::open(TokenizerKind::Bert, path).unwrap();
    tokenizer.transformers_files(8).map_or_else(|error| error.to_string(), |_| "written".into())
}

#[test]
fn inexpressible_tokenizers_are_refused() {
    let folder = tempfile::tempdir().unwrap();
    let refusal = "bert tokenizer: expected the form of the published ones, got another";
    assert_eq!(export_of(folder.path(), |_| ()), "written");
    assert_eq!(
        export_of(folder.path(), |json| json["normalizer"]["lowercase"] = false.into()),
        refusal,
        "cased"
    );
    assert_eq!(export_of(folder.path(), |json| json["model"]["vocab"]["a"] = 7.into()), refusal, "a gap");
    let word = serde_json::json!({"id": 6, "content": "<toy>", "single_word": false, "lstrip": false,
        "rstrip": false, "normalized": false, "special": true});
    assert_eq!(
        export_of(folder.path(), |json| json["added_tokens"] = [word.clone()].into()),
        refusal,
        "an added token"
    );
}
