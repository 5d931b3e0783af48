//! Weighted, long and skipped prompts and textual inversion, against transformers; `golden/generate_weighted.py` made the
//! file.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use ldm_conditioning::{
    ClipTextConfig, Conditioner, ConditionerConfig, EmbeddingFile, PromptSyntax, TextOptions,
    TextualInversion, Tokenizer, TokenizerKind,
};
use ldm_core::Prompt;
use ldm_core::device::test_device;
use ldm_testing::{Golden, assert_close, fill_weights};
use serde::de::DeserializeOwned;
use tch::nn::VarStore;
use tch::{Kind, Tensor};

use crate::open_golden;

const WORDS: [&str; 2] = ["<cat>", "my-style"];

fn golden() -> Golden {
    open_golden("weighted.safetensors")
}

fn parsed<T: DeserializeOwned>(golden: &Golden, key: &str) -> T {
    serde_json::from_str(golden.metadata(key)).unwrap()
}

/// The model of the golden file, without learned words.
fn model(golden: &Golden) -> Box<dyn Conditioner> {
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("merges.txt"), golden.metadata("merges")).unwrap();
    let tokenizer = Tokenizer::open(TokenizerKind::Clip, folder.path().join("merges.txt")).unwrap();
    let mut config: serde_json::Value = parsed(golden, "sizes");
    config["max_length"] = 77.into();
    let config: ClipTextConfig = serde_json::from_value(config).unwrap();
    let vs = VarStore::new(test_device());
    let conditioner = ConditionerConfig::ClipText(config).build(&vs.root(), Some(tokenizer)).unwrap();
    fill_weights(&vs, 22);
    conditioner
}

fn with_words(golden: &Golden) -> Box<dyn Conditioner> {
    let mut model = model(golden);
    for token in WORDS {
        let vectors = golden.get(&format!("vectors.{token}")).shallow_clone();
        model.add_embedding(TextualInversion { token: token.into(), vectors }).unwrap();
    }
    model
}

fn weights(clip_skip: u32, chunks: usize) -> TextOptions {
    TextOptions { syntax: PromptSyntax::Weights, clip_skip, chunks }
}

fn context(model: &dyn Conditioner, text: &str, options: &TextOptions) -> Tensor {
    model.condition_text(&Prompt::text([text]), options).unwrap().context.unwrap()
}

#[test]
fn weighted_prompts_equal_transformers() {
    let golden = golden();
    let model = with_words(&golden);
    let prompts: Vec<String> = parsed(&golden, "prompts");
    let ids: Vec<Vec<Vec<i64>>> = parsed(&golden, "ids");
    for (index, (prompt, ids)) in prompts.iter().zip(&ids).enumerate() {
        let made = context(&*model, prompt, &weights(1, 1));
        assert_eq!(made.size(), [1, 77 * ids.len() as i64, 8], "{prompt}");
        let mean = made.mean_dim([0_i64, 1].as_slice(), false, Kind::Float);
        assert_close(prompt, &mean, &golden.get("means").get(index as i64), 1e-5);
        let chunks = model.chunks(&Prompt::text([prompt]), &weights(1, 1)).unwrap();
        assert_eq!(chunks, ids.len(), "{prompt}");
    }
    for (name, prompt, skip) in [
        ("weights", &*prompts[5], 1),
        ("break", &prompts[15], 1),
        ("learned", &prompts[30], 1),
        ("skip2", &prompts[5], 2),
        ("skip3", "a cat", 3),
    ] {
        assert_close(name, &context(&*model, prompt, &weights(skip, 1)), golden.get(name), 1e-5);
    }
}

#[test]
fn plain_prompts_are_text_and_truncated() {
    let golden = golden();
    let model = with_words(&golden);
    let plain: Vec<String> = parsed(&golden, "plain");
    let ids: Vec<Vec<i64>> = parsed(&golden, "plain_ids");
    let prompt = Prompt::text(plain.clone());
    let made = model.condition(&prompt, false).unwrap().context.unwrap();
    let options = TextOptions::default();
    assert_eq!(made, model.condition_text(&prompt, &options).unwrap().context.unwrap());
    assert_close("diffusers' load_textual_inversion", &made, golden.get("diffusers"), 1e-5);
    // Without learned words a text is the same as its tokens, and so are brackets.
    let tokens = Prompt { tokens: Some(Tensor::from_slice(&ids[0]).view([1, 77])), ..Prompt::default() };
    let same = model.condition(&tokens, false).unwrap().context.unwrap();
    assert_close("tokens", &made.narrow(0, 0, 1), &same, 1e-6);
    assert_eq!(model.cut(&prompt), [None, Some("my-style y".to_owned()), None]);
}

#[test]
fn prompts_of_a_batch_and_null_prompts_are_padded_by_empty_chunks() {
    let golden = golden();
    let model = model(&golden);
    let both = Prompt::text(["a (cat:1.4)", "a BREAK b BREAK c"]);
    let options = TextOptions { chunks: model.chunks(&both, &weights(2, 1)).unwrap(), ..weights(2, 1) };
    assert_eq!(options.chunks, 3);
    let made = model.condition_text(&both, &options).unwrap().context.unwrap();
    let alone = context(&*model, "a (cat:1.4)", &weights(2, 1));
    let empty = context(&*model, "", &weights(2, 1));
    let padded = Tensor::cat(&[&alone, &empty, &empty], 1);
    assert_close("padded", &made.narrow(0, 0, 1), &padded, 1e-5);
    let null = model.null_prompt(2).unwrap();
    assert!(null.tokens.is_some());
    let null = model.condition_text(&null, &options).unwrap().context.unwrap();
    assert_close("null", &null.narrow(0, 1, 1), &Tensor::cat(&[&empty, &empty, &empty], 1), 1e-5);
}

#[track_caller]
fn check_refusal(error: ldm_core::Result<impl Sized>, message: &str) {
    assert_eq!(error.map(|_| ()).unwrap_err().to_string(), message);
}

#[test]
fn invalid_options_and_weights_are_refused() {
    let golden = golden();
    let model = model(&golden);
    let read = |text: &str, options: TextOptions| model.condition_text(&Prompt::text([text]), &options);
    check_refusal(
        read("a", weights(0, 1)),
        "clip skip: expected 1 to 3, the layers of the text model, got 0",
    );
    check_refusal(
        read("a", weights(4, 1)),
        "clip skip: expected 1 to 3, the layers of the text model, got 4",
    );
    check_refusal(
        read("(a:1.2.3)", weights(1, 1)),
        "prompt: weight: expected a number such as 1.2, got 1.2.3",
    );
    let huge = format!("(a:{})", "9".repeat(400));
    check_refusal(read(&huge, weights(1, 1)), "prompt: weight of `a`: expected a finite number, got inf");
    // Other models have neither.
    let vs = VarStore::new(test_device());
    let class = ConditionerConfig::default().build(&vs.root(), None).unwrap();
    let prompt = Prompt::default();
    check_refusal(
        class.condition_text(&prompt, &weights(1, 1)),
        "prompt syntax: expected plain for a model without CLIP's text model, got weights",
    );
    check_refusal(
        class.condition_text(&prompt, &TextOptions { clip_skip: 2, ..TextOptions::default() }),
        "clip skip: expected 1 for a model without CLIP's text model, got 2",
    );
}

fn save(path: &Path, tensors: &[(&str, Tensor)]) {
    let tensors: Vec<(String, Tensor)> =
        tensors.iter().map(|(name, tensor)| ((*name).to_owned(), tensor.shallow_clone())).collect();
    ldm_checkpoint::save(path, &tensors, &BTreeMap::new()).unwrap();
}

fn read(path: &Path, token: Option<&str>) -> ldm_core::Result<TextualInversion> {
    EmbeddingFile { path: path.to_path_buf(), token: token.map(str::to_owned) }.read()
}

#[test]
fn files_of_textual_inversion_are_read() {
    let folder = tempfile::tempdir().unwrap();
    let at = |name: &str| folder.path().join(name);
    let vectors = Tensor::arange(16, (Kind::Float, tch::Device::Cpu)).view([2, 8]);
    // AUTOMATIC1111's safetensors, diffusers' file, alone and in its folder.
    save(&at("my-style.safetensors"), &[("emb_params", vectors.to_kind(Kind::Half))]);
    save(&at("cat.safetensors"), &[("<cat>", vectors.get(0))]);
    fs::create_dir(at("concept")).unwrap();
    fs::copy(at("cat.safetensors"), at("concept/learned_embeds.safetensors")).unwrap();
    for (name, token, expected, size) in [
        ("my-style.safetensors", None, "my-style", [2, 8]),
        ("my-style.safetensors", Some("dog"), "dog", [2, 8]),
        ("cat.safetensors", None, "<cat>", [1, 8]),
        ("cat.safetensors", Some("dog"), "dog", [1, 8]),
        ("concept", None, "<cat>", [1, 8]),
    ] {
        let found = read(&at(name), token).unwrap();
        assert_eq!((&*found.token, found.vectors.size()), (expected, size.to_vec()), "{name}");
        assert_eq!(found.vectors.get(0), vectors.get(0));
    }
    // What is saved reads back.
    let saved = TextualInversion { token: "<new>".into(), vectors };
    saved.save(at("new.safetensors")).unwrap();
    let found = read(&at("new.safetensors"), None).unwrap();
    assert_eq!((found.token, found.vectors), (saved.token, saved.vectors));
}

#[test]
fn a_pickle_of_automatic1111_is_read() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden/a1111.pt");
    let found = read(&path, None).unwrap();
    assert_eq!((&*found.token, found.vectors.size()), ("a1111", vec![2, 8]));
    assert_close("vectors", &found.vectors, golden().get("a1111"), 1e-7);
}

#[test]
fn other_files_and_words_are_refused() {
    let folder = tempfile::tempdir().unwrap();
    let at = |name: &str| folder.path().join(name);
    let zeros = |size: &[i64]| Tensor::zeros(size, (Kind::Float, tch::Device::Cpu));
    for (tensors, message) in [
        (
            vec![("clip_l", zeros(&[1, 8])), ("clip_g", zeros(&[1, 9]))],
            "one for SDXL, which has two (clip_l, clip_g)",
        ),
        (vec![("a", zeros(&[1, 8])), ("b", zeros(&[1, 8]))], "the vectors of one word, got 2 tensors"),
        (vec![("a", zeros(&[1, 8, 1]))], "expected numbers [n, D] or [D] in `a`, got Float of [1, 8, 1]"),
        (vec![("a", zeros(&[0, 8]))], "got Float of [0, 8]"),
        (vec![("a", zeros(&[1, 8]).to_kind(Kind::Int64))], "got Int64 of [1, 8]"),
        (vec![("a", zeros(&[1, 8]) / 0.)], "expected finite numbers, got NaN or Inf"),
    ] {
        save(&at("bad.safetensors"), &tensors);
        let error = read(&at("bad.safetensors"), None).unwrap_err().to_string();
        assert!(error.contains(message) && error.contains("bad.safetensors"), "{error}");
    }
    save(&at("bad.safetensors"), &[("a\u{1b}[31m", zeros(&[1, 8]))]);
    let error = read(&at("bad.safetensors"), None).unwrap_err().to_string();
    assert!(
        error.ends_with(r#"expected a word without control characters, got "a\u{1b}[31m"; try FILE:TOKEN"#),
        "{error}"
    );
    let mut model = with_words(&golden());
    assert_eq!(model.learned_words(), WORDS);
    let mut add = |token: &str, size: &[i64]| {
        model.add_embedding(TextualInversion { token: token.into(), vectors: zeros(size) })
    };
    check_refusal(
        add("new", &[1, 9]),
        "embedding `new`: expected vectors [n, 8], as wide as the model's tokens, got [1, 9]",
    );
    check_refusal(
        add("new", &[76, 8]),
        "embedding `new`: expected at most 75 vectors, the tokens of a text, got 76",
    );
    check_refusal(
        add("My-Style", &[1, 8]),
        "embedding `My-Style`: expected a new word, got one that was added before",
    );
    let vs = VarStore::new(test_device());
    let mut class = ConditionerConfig::default().build(&vs.root(), None).unwrap();
    check_refusal(
        class.add_embedding(TextualInversion { token: "new".into(), vectors: zeros(&[1, 8]) }),
        "embedding `new`: expected a model with CLIP's text model, got another one",
    );
}

#[test]
fn the_word_of_a_file_follows_the_last_colon() {
    let parse = |text: &str| text.parse::<EmbeddingFile>().map(|file| (file.path, file.token)).ok();
    assert_eq!(parse("a.pt"), Some(("a.pt".into(), None)));
    assert_eq!(parse("a.pt:<cat>"), Some(("a.pt".into(), Some("<cat>".into()))));
    assert_eq!((parse(":cat"), parse("a.pt:"), parse("")), (None, None, None));
}
