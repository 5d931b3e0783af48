//! Tokenizers against transformers', truncation, and file formats.

use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};

use flate2::Compression;
use flate2::write::GzEncoder;
use ldm_conditioning::{Encoding, Tokenizer, TokenizerKind};
use ldm_testing::{Golden, shared_data};
use tch::{Device, Tensor};

use crate::golden;

const LENGTH: usize = 77;

/// The published vocabularies.
fn published(file: &str) -> Option<PathBuf> {
    let path = shared_data().map(|data| data.join("tokenizers").join(file)).filter(|path| path.is_file());
    if path.is_none() {
        eprintln!("skipped: no shared data with tokenizers/{file}");
    }
    path
}

const BERT: &str = "bert-base-uncased-vocab.txt";
const CLIP: &str = "bpe_simple_vocab_16e6.txt.gz";

fn rows(ids: &Tensor) -> Vec<Vec<i64>> {
    Vec::<Vec<i64>>::try_from(ids).unwrap()
}

/// The ids of every prompt equal those of transformers.
#[track_caller]
fn check_prompts(kind: TokenizerKind, tokenizer: &Tokenizer) {
    let prompts: Vec<String> =
        serde_json::from_str(&fs::read_to_string(golden("prompts.json")).unwrap()).unwrap();
    assert_eq!(prompts.len(), 500);
    let golden = Golden::open(golden("prompts.safetensors"), Device::Cpu);
    let list = |name: &str| Vec::<i64>::try_from(golden.get(&format!("{kind}.{name}"))).unwrap();
    let (ids, lengths, pad) = (list("ids"), list("lengths"), list("pad")[0]);
    let Encoding { ids: got, cut } = tokenizer.encode(&prompts, LENGTH).unwrap();
    let mut from = 0;
    let mut wrong = Vec::new();
    for (index, row) in rows(&got).into_iter().enumerate() {
        let length = lengths[index] as usize;
        let mut want = ids[from..from + length].to_vec();
        want.resize(LENGTH, pad);
        from += length;
        if row != want {
            wrong.push(format!("{:?}\n   got {row:?}\n  want {want:?}", prompts[index]));
        }
    }
    assert_eq!(from, ids.len());
    assert!(wrong.is_empty(), "{} of 500 differ: {}", wrong.len(), wrong.join("\n"));
    // A text is reported as truncated if and only if transformers truncates it.
    let whole = tokenizer.encode(&prompts, 4 * 1024).unwrap();
    let mark = |id: i64| rows(&tokenizer.encode(&[""], 3).unwrap().ids)[0][1..].contains(&id);
    for ((row, cut), prompt) in rows(&whole.ids).iter().zip(&cut).zip(&prompts) {
        assert_eq!(cut.is_some(), !mark(row[LENGTH - 1]), "{prompt:?}");
    }
    assert!(cut.iter().any(Option::is_some) && whole.cut.iter().all(Option::is_none));
}

#[test]
fn bert_ids_equal_transformers() {
    let Some(path) = published(BERT) else { return };
    let tokenizer = Tokenizer::open(TokenizerKind::Bert, path).unwrap();
    assert_eq!(tokenizer.vocab_size(), 30522);
    check_prompts(TokenizerKind::Bert, &tokenizer);
}

#[test]
fn clip_ids_equal_transformers() {
    let Some(path) = published(CLIP) else { return };
    let tokenizer = Tokenizer::open(TokenizerKind::Clip, path).unwrap();
    assert_eq!(tokenizer.vocab_size(), 49408);
    check_prompts(TokenizerKind::Clip, &tokenizer);
}

#[test]
fn known_ids() {
    let Some(path) = published(CLIP) else { return };
    let clip = Tokenizer::open(TokenizerKind::Clip, path).unwrap();
    let ids = clip.encode(&["a photograph of an astronaut riding a horse", ""], 12).unwrap().ids;
    // openai/CLIP gives the same.
    assert_eq!(
        rows(&ids),
        [
            vec![49406, 320, 8853, 539, 550, 18376, 6765, 320, 4558, 49407, 49407, 49407],
            [vec![49406], vec![49407; 11]].concat(),
        ]
    );
    let bert = Tokenizer::open(TokenizerKind::Bert, published(BERT).unwrap()).unwrap();
    let ids = bert.encode(&["Hello, world!", ""], 8).unwrap().ids;
    assert_eq!(rows(&ids), [[101, 7592, 1010, 2088, 999, 102, 0, 0], [101, 102, 0, 0, 0, 0, 0, 0]]);
}

/// The truncated part is the rest of the text.
#[track_caller]
fn check_cut(tokenizer: &Tokenizer, text: &str, length: usize, cut: Option<&str>) {
    let got = tokenizer.encode(&[text], length).unwrap().cut.remove(0);
    assert_eq!(got.as_deref(), cut, "{text:?}");
}

#[test]
fn truncated_text_is_reported() {
    let Some(path) = published(CLIP) else { return };
    let clip = Tokenizer::open(TokenizerKind::Clip, path).unwrap();
    check_cut(&clip, "a photograph of an astronaut", 7, None);
    check_cut(&clip, "a photograph of an astronaut", 6, Some("astronaut"));
    check_cut(&clip, "a photograph of an  astronaut, Étude", 6, Some("astronaut, Étude"));
    check_cut(&clip, "a cat", 2, Some("a cat"));
    check_cut(&clip, "", 2, None);
    check_cut(&clip, "  a  CAFE\u{301}  au lait ", 4, Some("au lait"));
    // Four tokens per emoji; a cut within one truncates all of it.
    check_cut(&clip, "🫠🫠🫠", 5, Some("🫠🫠"));
    let bert = Tokenizer::open(TokenizerKind::Bert, published(BERT).unwrap()).unwrap();
    check_cut(&bert, "Hello, World! Ünïcode", 6, Some("Ünïcode"));
    check_cut(&bert, "猫が好き", 3, Some("が好き"));
}

/// Merges that make `cat</w>`.
const MERGES: &str = "#version: 0.2\nc a\nca t</w>\n";

fn small_vocab(pad: &str) -> String {
    let tokens = ["c", "a", "t", "ca", "cat</w>", "a</w>", "t</w>", "<|startoftext|>", "<|endoftext|>", pad];
    let pairs: Vec<String> =
        tokens.iter().enumerate().map(|(id, token)| format!("{}: {id}", serde_json::json!(token))).collect();
    format!("{{{}}}", pairs.join(", "))
}

#[test]
fn every_file_format_is_read() {
    let folder = tempfile::tempdir().unwrap();
    let at = |name: &str| folder.path().join(name);
    let clip = |path: &Path| Tokenizer::open(TokenizerKind::Clip, path).unwrap();
    let ids = |tokenizer: &Tokenizer| rows(&tokenizer.encode(&["CAT a"], 5).unwrap().ids).remove(0);

    // A list of merges: 256 bytes, 256 word-final bytes, two merges, two special tokens.
    fs::write(at("merges-alone.txt"), MERGES).unwrap();
    let from_merges = [514, 513, 256 + 64, 515, 515];
    assert_eq!(ids(&clip(&at("merges-alone.txt"))), from_merges);
    assert_eq!(clip(&at("merges-alone.txt")).vocab_size(), 516);
    let mut packed = GzEncoder::new(fs::File::create(at("packed")).unwrap(), Compression::default());
    packed.write_all(MERGES.as_bytes()).unwrap();
    packed.finish().unwrap();
    assert_eq!(ids(&clip(&at("packed"))), from_merges);
    fs::create_dir(at("openai")).unwrap();
    fs::copy(at("packed"), at("openai/bpe_simple_vocab_16e6.txt.gz")).unwrap();
    assert_eq!(ids(&clip(&at("openai"))), from_merges);

    // transformers' two files, in `tokenizer` or not, with a padding token or without.
    fs::create_dir_all(at("model/tokenizer")).unwrap();
    fs::write(at("model/tokenizer/vocab.json"), small_vocab("!")).unwrap();
    fs::write(at("model/tokenizer/merges.txt"), MERGES).unwrap();
    assert_eq!(ids(&clip(&at("model"))), [7, 4, 5, 8, 8]);
    fs::write(at("model/tokenizer/special_tokens_map.json"), r#"{"pad_token": "!"}"#).unwrap();
    assert_eq!(ids(&clip(&at("model/tokenizer"))), [7, 4, 5, 8, 9]);
    fs::write(at("model/tokenizer/tokenizer_config.json"), r#"{"pad_token": {"content": "a"}}"#).unwrap();
    assert_eq!(ids(&clip(&at("model"))), [7, 4, 5, 8, 1]);

    // tokenizer.json, whose truncation and padding are ignored.
    let inner = tokenizers::Tokenizer::from_bytes(
        serde_json::json!({
            "version": "1.0",
            "truncation": {"direction": "Right", "max_length": 1, "strategy": "LongestFirst", "stride": 0},
            "padding": {"strategy": {"Fixed": 9}, "direction": "Right", "pad_to_multiple_of": null, "pad_id": 3,
                "pad_type_id": 0, "pad_token": "x"},
            "added_tokens": [],
            "normalizer": {"type": "Lowercase"},
            "pre_tokenizer": {"type": "Whitespace"},
            "post_processor": null,
            "decoder": null,
            "model": {"type": "WordPiece", "unk_token": "[UNK]", "continuing_subword_prefix": "##",
                "max_input_chars_per_word": 100,
                "vocab": {"[PAD]": 0, "[UNK]": 1, "[CLS]": 2, "[SEP]": 3, "cat": 4, "a": 5}},
        })
        .to_string(),
    )
    .unwrap();
    inner.save(at("tokenizer.json"), false).unwrap();
    for path in [at("tokenizer.json"), folder.path().to_path_buf()] {
        let tokenizer = Tokenizer::open(TokenizerKind::Bert, path).unwrap();
        assert_eq!(tokenizer.kind(), TokenizerKind::Bert);
        assert_eq!(ids(&tokenizer), [2, 4, 5, 3, 0]);
    }
}

#[test]
fn carriage_returns_are_stripped() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("vocab.txt");
    fs::write(&path, "[PAD]\r\n[UNK]\r\n[CLS]\r\n[SEP]\r\n[MASK]\r\ncat\r\n").unwrap();
    let tokenizer = Tokenizer::open(TokenizerKind::Bert, &path).unwrap();
    assert_eq!(tokenizer.vocab_size(), 6);
    let ids = tokenizer.encode(&["Cat dog [MASK]"], 6).unwrap().ids;
    assert_eq!(rows(&ids), [[2, 5, 1, 4, 3, 0]]);
}

/// A repeated line is one token with the later id; later ids do not change.
#[test]
fn repeated_words_have_the_later_id() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("vocab.txt");
    fs::write(&path, "[PAD]\n[UNK]\n[CLS]\n[SEP]\n[MASK]\ncat\ncat\ndog\n").unwrap();
    let tokenizer = Tokenizer::open(TokenizerKind::Bert, &path).unwrap();
    assert_eq!(rows(&tokenizer.encode(&["cat dog"], 4).unwrap().ids), [[2, 6, 7, 3]]);
    assert_eq!(tokenizer.vocab_size(), 8, "every id is below it");
}

#[track_caller]
fn check_refusal(kind: TokenizerKind, path: &Path, message: &str) {
    let got = Tokenizer::open(kind, path).unwrap_err().to_string();
    assert_eq!(got, format!("{}: {message}", path.display()));
}

#[test]
fn invalid_files_are_refused() {
    use TokenizerKind::{Bert, Clip};
    let folder = tempfile::tempdir().unwrap();
    let at = |name: &str| folder.path().join(name);
    let get = |kind: TokenizerKind| format!("try `ldm weights get {kind}-tokenizer` or --tokenizer PATH");
    check_refusal(Bert, &at("none"), &format!("expected a bert tokenizer, got no file; {}", get(Bert)));
    check_refusal(
        Bert,
        folder.path(),
        &format!("expected tokenizer.json or vocab.txt of a bert tokenizer, got none; {}", get(Bert)),
    );
    check_refusal(
        Clip,
        folder.path(),
        &format!(
            "expected tokenizer.json, vocab.json and merges.txt, or bpe_simple_vocab_16e6.txt.gz of a clip tokenizer, \
             got none; {}",
            get(Clip)
        ),
    );
    fs::create_dir(at("half")).unwrap();
    fs::write(at("half/merges.txt"), MERGES).unwrap();
    let error = Tokenizer::open(Clip, at("half")).unwrap_err().to_string();
    let missing = format!(
        "{}: expected `vocab.json` next to it, got none; {}",
        at("half/merges.txt").display(),
        get(Clip)
    );
    assert_eq!(error, missing);
    fs::write(at("words"), "[PAD]\n[UNK]\n[CLS]\ncat").unwrap();
    check_refusal(Bert, &at("words"), "expected a BERT vocabulary, got no line `[SEP]`");
    check_refusal(Clip, &at("words"), "line 2: expected a merge of two parts, got [UNK]");
    fs::write(at("merges"), "#version\nc a\nzz q\n").unwrap();
    check_refusal(Clip, &at("merges"), "expected a CLIP vocabulary: Token `zz` out of vocabulary");
    fs::write(at("bytes"), [0xff, b'a']).unwrap();
    check_refusal(
        Clip,
        &at("bytes"),
        "expected UTF-8 text, got the byte 0xff at line 1, byte 1; try saving it as UTF-8",
    );
    fs::write(at("gzip"), [0x1f, 0x8b, 8, 0]).unwrap();
    check_refusal(Clip, &at("gzip"), "expected gzip: unexpected end of file");
    fs::write(at("x.json"), "{").unwrap();
    let error = Tokenizer::open(Bert, at("x.json")).unwrap_err().to_string();
    assert!(error.contains("x.json: expected the format of tokenizer.json: "), "{error}");
}

#[test]
fn a_vocabulary_without_special_tokens_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("vocab.json"), small_vocab("!").replace("<|endoftext|>", "</s>")).unwrap();
    fs::write(folder.path().join("merges.txt"), MERGES).unwrap();
    let error = Tokenizer::open(TokenizerKind::Clip, folder.path()).unwrap_err().to_string();
    assert!(
        error.ends_with("merges.txt: expected a CLIP vocabulary, got none with the token `<|endoftext|>`"),
        "{error}"
    );
}
