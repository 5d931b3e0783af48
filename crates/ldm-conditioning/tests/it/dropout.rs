//! Conditioning dropout: selection, rate, and errors.

use ldm_conditioning::{
    BertConfig, BertEmbedder, ClassConfig, ClassEmbedder, Conditioner, Identity, PromptDropout, Tokenizer,
    TokenizerKind, Unconditional,
};
use ldm_core::Prompt;
use ldm_core::device::test_device;
use ldm_core::noise::{PerStep, Replay};
use tch::nn::VarStore;
use tch::{Kind, Tensor};

fn embedder(null_class: Option<i64>) -> (VarStore, ClassEmbedder) {
    let vs = VarStore::new(test_device());
    let config = ClassConfig { embed_dim: 4, n_classes: 11, key: "class".into(), null_class };
    let embedder = ClassEmbedder::new(&vs.root(), &config).unwrap();
    (vs, embedder)
}

fn classes(prompt: Prompt) -> Vec<i64> {
    Vec::try_from(prompt.class.unwrap()).unwrap()
}

#[test]
fn a_sample_is_dropped_if_its_draw_is_below_the_probability() {
    let (_vs, embedder) = embedder(Some(10));
    let draws = Tensor::from_slice(&[0.05_f32, 0.1, 0.099, 0.9]);
    let dropout = PromptDropout::new(0.1).unwrap();
    let prompt = dropout.apply(&embedder, Prompt::class(&[1, 2, 3, 4]), &mut Replay::new([draws])).unwrap();
    assert_eq!(classes(prompt), [10, 2, 10, 4]);
}

#[test]
fn the_rate_is_the_probability() {
    let (_vs, embedder) = embedder(Some(10));
    let prompt =
        Prompt { class: Some(Tensor::zeros([20_000], (Kind::Int64, test_device()))), ..Prompt::default() };
    let prompt =
        PromptDropout::new(0.1).unwrap().apply(&embedder, prompt, &mut PerStep::new(1, 0, 0)).unwrap();
    let class = prompt.class.unwrap();
    assert_eq!(class.device(), test_device());
    let share = class.eq(10).to_kind(Kind::Double).mean(Kind::Double).double_value(&[]);
    assert!((share - 0.1).abs() < 0.01, "{share}"); // four standard errors are 0.0085
}

#[test]
fn probabilities_zero_and_one() {
    let (_vs, embedder) = embedder(Some(10));
    // The replayed noise is empty: probability 0 draws none.
    let unchanged =
        PromptDropout::new(0.).unwrap().apply(&embedder, Prompt::class(&[1, 2]), &mut Replay::default());
    assert_eq!(classes(unchanged.unwrap()), [1, 2]);
    let all = PromptDropout::new(1.).unwrap();
    let dropped = all.apply(&embedder, Prompt::class(&[1, 2]), &mut PerStep::new(1, 0, 0)).unwrap();
    assert_eq!(classes(dropped), [10, 10]);
    let untouched = all.apply(&Unconditional, Prompt::class(&[1, 2]), &mut Replay::default()).unwrap();
    assert_eq!(classes(untouched), [1, 2]);
    let empty = all.apply(&embedder, Prompt::default(), &mut Replay::default()).unwrap();
    assert!(empty.class.is_none());
}

fn bert(tokenizer: Option<Tokenizer>) -> (VarStore, BertEmbedder) {
    let vs = VarStore::new(test_device());
    let config = BertConfig {
        n_embed: 4,
        n_layer: 1,
        vocab_size: 10,
        max_seq_len: 4,
        device: None,
        use_tokenizer: true,
        embedding_dropout: 0.,
    };
    let embedder = BertEmbedder::new(&vs.root(), &config, tokenizer).unwrap();
    (vs, embedder)
}

fn draws() -> Replay {
    Replay::new([Tensor::from_slice(&[0.05_f32, 0.7, 0.])])
}

#[test]
fn texts_become_empty() {
    let (_vs, embedder) = bert(None);
    let dropout = PromptDropout::new(0.1).unwrap();
    let prompt = dropout.apply(&embedder, Prompt::text(["a", "b", "c"]), &mut draws()).unwrap();
    assert_eq!(prompt.text.unwrap(), ["", "b", ""]);
    assert!(prompt.tokens.is_none());
}

#[test]
fn tokens_become_those_of_the_empty_text() {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("vocab.txt"), "[PAD]\n[UNK]\n[CLS]\n[SEP]\n[MASK]\ncat").unwrap();
    let tokenizer = Tokenizer::open(TokenizerKind::Bert, folder.path()).unwrap();
    let (_vs, embedder) = bert(Some(tokenizer));
    let dropout = PromptDropout::new(0.1).unwrap();
    let tokens = |length| Some(Tensor::full([3, length], 5, (Kind::Int64, test_device())));
    let prompt =
        Prompt { tokens: tokens(4), class: Some(Tensor::from_slice(&[1_i64, 2, 3])), ..Prompt::default() };
    let prompt = dropout.apply(&embedder, prompt, &mut draws()).unwrap();
    let rows = Vec::<Vec<i64>>::try_from(prompt.tokens.as_ref().unwrap()).unwrap();
    assert_eq!(rows, [[2, 3, 0, 0], [5, 5, 5, 5], [2, 3, 0, 0]]);
    assert_eq!(classes(prompt), [1, 2, 3], "an input that this model does not read stays");
    let short = Prompt { tokens: tokens(3), ..Prompt::default() };
    let error = dropout.apply(&embedder, short, &mut draws()).unwrap_err().to_string();
    assert_eq!(error, "tokens: expected shape [3, 4], as the null prompt, got [3, 3]");
}

#[test]
fn embeddings_become_zeros() {
    let identity = Identity::new(test_device());
    let ones = Tensor::ones([3, 2, 2], (Kind::Float, test_device()));
    let prompt = Prompt { embedding: Some(ones.shallow_clone()), ..Prompt::default() };
    let dropout = PromptDropout::new(0.1).unwrap();
    let prompt = dropout.apply(&identity, prompt, &mut draws()).unwrap();
    let means: Vec<f32> =
        prompt.embedding.unwrap().mean_dim([1, 2].as_slice(), false, Kind::Float).try_into().unwrap();
    assert_eq!(means, [0., 1., 0.]);
    let image = Prompt { image: Some(ones.unsqueeze(0)), ..Prompt::default() };
    assert!(identity.null_like(&image).is_err());
    assert!(dropout.apply(&identity, image, &mut Replay::default()).is_err());
}

#[test]
fn errors_are_reported() {
    for probability in [-0.1, 1.1, f64::NAN] {
        let error = PromptDropout::new(probability).unwrap_err().to_string();
        assert_eq!(
            error,
            format!("conditioning dropout: expected a probability in [0, 1], got {probability}")
        );
    }
    let (_vs, embedder) = embedder(None);
    let dropout = PromptDropout::new(0.1).unwrap();
    let error =
        dropout.apply(&embedder, Prompt::class(&[1]), &mut Replay::default()).unwrap_err().to_string();
    assert!(error.starts_with("null_class: expected a null class"), "{error}");
}
