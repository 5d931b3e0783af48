//! Token and text embedders against CompVis, and their errors.

use std::collections::BTreeMap;
use std::path::Path;

use ldm_conditioning::{
    BertConfig, ClipTextConfig, Conditioner, ConditionerConfig, Tokenizer, TokenizerKind, TransformerConfig,
};
use ldm_core::Prompt;
use ldm_core::device::test_device;
use ldm_testing::{Golden, assert_close, fill_weights, shared_data};
use serde::Deserialize;
use serde_json::Value;
use tch::nn::VarStore;
use tch::{Kind, Tensor};

#[derive(Deserialize)]
struct Case {
    #[serde(default = "clip")]
    target: String,
    params: Value,
    seed: u64,
}

fn clip() -> String {
    "clip_text".into()
}

struct Cases {
    golden: Golden,
    cases: BTreeMap<String, Case>,
}

impl Cases {
    fn open(file: &str) -> Self {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden").join(file);
        let golden = Golden::open(path, test_device());
        let cases = serde_json::from_str(golden.metadata("cases")).unwrap();
        Self { golden, cases }
    }

    fn build(&self, name: &str, tokenizer: Option<Tokenizer>) -> Box<dyn Conditioner> {
        let Case { target, params, seed } = &self.cases[name];
        let written = serde_json::json!({ "target": target, "params": params });
        let config: ConditionerConfig = serde_json::from_value(written).unwrap();
        let vs = VarStore::new(test_device());
        let conditioner = config.build(&vs.root(), tokenizer).unwrap();
        fill_weights(&vs, *seed);
        conditioner
    }

    fn check_tokens(&self, name: &str) {
        let conditioner = self.build(name, None);
        let tokens = self.golden.get(&format!("{name}.tokens")).shallow_clone();
        let prompt = Prompt { tokens: Some(tokens), ..Prompt::default() };
        let cond = conditioner.condition(&prompt, false).unwrap();
        assert!(cond.concat.is_none() && cond.label.is_none());
        let want = self.golden.get(&format!("{name}.context"));
        assert_close(name, &cond.context.unwrap(), want, 1e-5);
        assert!(conditioner.cut(&prompt).is_empty());
    }

    /// Text to context, where the vocabulary is there.
    fn check_texts(&self, kind: TokenizerKind) {
        let Some(folder) = shared_data().map(|data| data.join("tokenizers")) else {
            eprintln!("skipped: no shared data with tokenizers");
            return;
        };
        let texts: Vec<String> = serde_json::from_str(self.golden.metadata("texts")).unwrap();
        let conditioner = self.build("text", Some(Tokenizer::open(kind, folder).unwrap()));
        let prompt = Prompt::text(texts);
        let context = conditioner.condition(&prompt, false).unwrap().context.unwrap();
        let want = self.golden.get("text.context");
        assert_close("text", &context, want, 1e-5);
        // The second text is empty: what guidance is guided away from.
        let nothing = conditioner.unconditional(2).unwrap().context.unwrap();
        let empty = want.narrow(0, 1, 1);
        assert_close("nothing", &nothing, &Tensor::cat(&[&empty, &empty], 0), 1e-5);
        let like = conditioner.unconditional_like(&prompt).unwrap().context.unwrap();
        assert_eq!(like.size(), want.size());
        let cut = conditioner.cut(&prompt);
        assert_eq!((cut[0].as_deref(), cut[1].as_deref()), (None, None));
        assert!(cut[2].as_deref().unwrap().starts_with("snow snow"), "{cut:?}");
    }
}

#[test]
fn bert_equals_the_reference() {
    let cases = Cases::open("tokens.safetensors");
    cases.check_tokens("bert");
    cases.check_tokens("bert_shorter");
    cases.check_tokens("transformer");
    cases.check_texts(TokenizerKind::Bert);
}

#[test]
fn clip_text_equals_the_reference() {
    let cases = Cases::open("clip_text.safetensors");
    cases.check_tokens("quick_gelu");
    cases.check_tokens("gelu_shorter");
    cases.check_texts(TokenizerKind::Clip);
}

#[test]
fn embedding_dropout_acts_only_in_training() {
    let cases = Cases::open("tokens.safetensors");
    let conditioner = cases.build("bert_shorter", None);
    let tokens = cases.golden.get("bert_shorter.tokens").shallow_clone();
    let prompt = Prompt { tokens: Some(tokens), ..Prompt::default() };
    let context = |train| conditioner.condition(&prompt, train).unwrap().context.unwrap();
    assert_eq!(context(false), context(false));
    assert_ne!(context(true), context(false));
    assert_ne!(context(true), context(true));
}

#[test]
fn gradients_reach_the_weights_that_the_reference_trains() {
    let gradients = |config: ConditionerConfig| {
        let vs = VarStore::new(test_device());
        let conditioner = config.build(&vs.root(), None).unwrap();
        let tokens = Tensor::from_slice(&[1_i64, 2, 3]).view([1, 3]);
        let prompt = Prompt { tokens: Some(tokens), ..Prompt::default() };
        let context = conditioner.condition(&prompt, true).unwrap().context.unwrap();
        if context.requires_grad() {
            context.square().mean(Kind::Float).backward();
        }
        let without = |(name, variable): (String, Tensor)| (!variable.grad().defined()).then_some(name);
        vs.variables().into_iter().filter_map(without).collect::<Vec<_>>()
    };
    let mut unused = gradients(ConditionerConfig::Bert(bert(true)));
    unused.sort();
    assert_eq!(unused, ["transformer.to_logits.bias", "transformer.to_logits.weight"]);
    let frozen = gradients(ConditionerConfig::ClipText(tiny_clip()));
    assert_eq!(frozen.len(), 20, "CLIP is frozen");
}

fn bert(use_tokenizer: bool) -> BertConfig {
    BertConfig {
        n_embed: 8,
        n_layer: 1,
        vocab_size: 10,
        max_seq_len: 6,
        device: None,
        use_tokenizer,
        embedding_dropout: 0.,
    }
}

fn tiny_clip() -> ClipTextConfig {
    ClipTextConfig {
        hidden_size: 8,
        intermediate_size: 16,
        num_hidden_layers: 1,
        num_attention_heads: 2,
        vocab_size: 10,
        max_length: 6,
        max_position_embeddings: 6,
        ..ClipTextConfig::default()
    }
}

fn tokens(values: &[i64], length: i64) -> Prompt {
    Prompt { tokens: Some(Tensor::from_slice(values).view([-1, length])), ..Prompt::default() }
}

#[track_caller]
fn check_refusal(config: &ConditionerConfig, prompt: &Prompt, message: &str) {
    let vs = VarStore::new(test_device());
    let conditioner = config.build(&vs.root(), None).unwrap();
    assert_eq!(conditioner.condition(prompt, false).unwrap_err().to_string(), message);
}

#[test]
fn invalid_prompts_are_refused() {
    let layout = ConditionerConfig::Bert(bert(false));
    let bert = ConditionerConfig::Bert(bert(true));
    let clip = ConditionerConfig::ClipText(tiny_clip());
    check_refusal(
        &bert,
        &Prompt::text(["a cat"]),
        "text: expected a bert tokenizer, got none; try `ldm weights get bert-tokenizer` or --tokenizer PATH",
    );
    check_refusal(
        &clip,
        &Prompt::text(["a cat"]),
        "text: expected a clip tokenizer, got none; try `ldm weights get clip-tokenizer` or --tokenizer PATH",
    );
    let no = |what| format!("this model is conditioned on `{what}`, and the prompt has none");
    check_refusal(&bert, &Prompt::class(&[1]), &no("text"));
    check_refusal(&layout, &Prompt::text(["a cat"]), &no("layout` or `tokens"));
    check_refusal(&clip, &tokens(&[1, 10], 2), "tokens: expected 0 to 9, got 10");
    check_refusal(&layout, &tokens(&[-1, 10], 2), "tokens: expected 0 to 9, got -1");
    check_refusal(&layout, &tokens(&[1; 7], 7), "tokens: expected shape [B, L] with L at most 6, got [1, 7]");
    let flat = Prompt { tokens: Some(Tensor::from_slice(&[1_i64, 2])), ..Prompt::default() };
    check_refusal(&clip, &flat, "tokens: expected shape [B, L] with L at most 6, got [2]");
    let fraction = Prompt { tokens: Some(Tensor::from_slice(&[1_f32]).view([1, 1])), ..Prompt::default() };
    check_refusal(&clip, &fraction, "tokens: expected integers, got Float");
}

#[test]
fn the_null_layout_is_the_last_token_everywhere() {
    let transformer =
        TransformerConfig { n_embed: 8, n_layer: 1, vocab_size: 10, max_seq_len: 6, device: None };
    for config in [ConditionerConfig::Transformer(transformer), ConditionerConfig::Bert(bert(false))] {
        let vs = VarStore::new(test_device());
        let conditioner = config.build(&vs.root(), None).unwrap();
        let null = conditioner.condition(&tokens(&[9; 12], 6), false).unwrap();
        assert_eq!(conditioner.unconditional(2).unwrap().context, null.context);
    }
}

#[test]
fn invalid_configs_are_refused() {
    let of = |change: fn(&mut ClipTextConfig)| {
        let mut config = tiny_clip();
        change(&mut config);
        ConditionerConfig::ClipText(config)
    };
    for (config, message) in [
        (
            ConditionerConfig::Bert(BertConfig { n_layer: 0, ..bert(true) }),
            "bert conditioning: n_layer: expected at least 1, got 0",
        ),
        (
            ConditionerConfig::Bert(BertConfig { embedding_dropout: 1., ..bert(true) }),
            "embedding_dropout: expected a probability in [0, 1), got 1",
        ),
        (
            of(|config| config.num_attention_heads = 3),
            "clip_text conditioning: num_attention_heads: expected a divisor of hidden_size 8, got 3",
        ),
        (
            of(|config| config.max_length = 7),
            "clip_text conditioning: max_length: expected at most max_position_embeddings 6, got 7",
        ),
        (
            of(|config| config.vocab_size = -1),
            "clip_text conditioning: vocab_size: expected at least 1, got -1",
        ),
        (
            of(|config| config.layer_norm_eps = 0.),
            "clip_text conditioning: layer_norm_eps: expected a positive number, got 0",
        ),
    ] {
        let vs = VarStore::new(test_device());
        assert_eq!(config.build(&vs.root(), None).unwrap_err().to_string(), message);
    }
}

/// A BERT vocabulary of `count` words.
fn words(folder: &Path, count: usize) -> Tokenizer {
    let marks = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "cat", "##s", "a"];
    let more = (0..).map(|index| format!("w{index}"));
    let list: Vec<String> = marks.into_iter().map(str::to_owned).chain(more).take(count).collect();
    std::fs::write(folder.join("vocab.txt"), list.join("\n")).unwrap();
    Tokenizer::open(TokenizerKind::Bert, folder).unwrap()
}

#[test]
fn mismatched_tokenizers_are_refused() {
    let folder = tempfile::tempdir().unwrap();
    let build = |config: ConditionerConfig, tokenizer| {
        let vs = VarStore::new(test_device());
        config.build(&vs.root(), Some(tokenizer)).map(|_| ()).map_err(|error| error.to_string())
    };
    let small = words(folder.path(), 10);
    let wrong = build(ConditionerConfig::ClipText(tiny_clip()), small.clone());
    assert_eq!(wrong.unwrap_err(), "tokenizer: expected clip, got bert");
    let large = build(ConditionerConfig::Bert(bert(true)), words(folder.path(), 11));
    assert_eq!(large.unwrap_err(), "tokenizer: expected at most 10 tokens (vocab_size), got 11");
    let short = build(ConditionerConfig::Bert(BertConfig { max_seq_len: 1, ..bert(true) }), small.clone());
    assert_eq!(short.unwrap_err(), "max_length: expected at least 2 tokens, for start and end, got 1",);
    build(ConditionerConfig::Bert(bert(false)), small).unwrap();
}

#[test]
fn a_text_equals_its_tokens() {
    let folder = tempfile::tempdir().unwrap();
    let vs = VarStore::new(test_device());
    let config = ConditionerConfig::Bert(bert(true));
    let conditioner = config.build(&vs.root(), Some(words(folder.path(), 10))).unwrap();
    let context = |prompt: &Prompt| conditioner.condition(prompt, false).unwrap().context.unwrap();
    let text = context(&Prompt::text(["a cats"]));
    assert_eq!(text, context(&tokens(&[2, 7, 5, 6, 3, 0], 6)));
    let nothing = conditioner.null_prompt(1).unwrap();
    assert_eq!(nothing.text.as_deref(), Some(&[String::new()][..]));
    assert_eq!(context(&nothing), context(&tokens(&[2, 3, 0, 0, 0, 0], 6)));
}
