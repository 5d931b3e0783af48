//! Conditioning dropout: which prompts go, how many, and what it refuses.

#![allow(clippy::unwrap_used, reason = "clippy knows tests, not the functions beside them")]

use ldm_conditioning::{ClassConfig, ClassEmbedder, PromptDropout, Unconditional};
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
fn a_sample_is_dropped_where_its_draw_is_below_the_probability() {
    let (_vs, embedder) = embedder(Some(10));
    let draws = Tensor::from_slice(&[0.05_f32, 0.1, 0.099, 0.9]);
    let dropout = PromptDropout::new(0.1).unwrap();
    let prompt = dropout.apply(&embedder, Prompt::class(&[1, 2, 3, 4]), &mut Replay::new([draws])).unwrap();
    assert_eq!(classes(prompt), [10, 2, 10, 4]);
}

#[test]
fn one_in_ten() {
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
fn both_ends() {
    let (_vs, embedder) = embedder(Some(10));
    // Nothing is recorded: probability 0 draws nothing.
    let kept =
        PromptDropout::new(0.).unwrap().apply(&embedder, Prompt::class(&[1, 2]), &mut Replay::default());
    assert_eq!(classes(kept.unwrap()), [1, 2]);
    let all = PromptDropout::new(1.).unwrap();
    let gone = all.apply(&embedder, Prompt::class(&[1, 2]), &mut PerStep::new(1, 0, 0)).unwrap();
    assert_eq!(classes(gone), [10, 10]);
    let untouched = all.apply(&Unconditional, Prompt::class(&[1, 2]), &mut Replay::default()).unwrap();
    assert_eq!(classes(untouched), [1, 2]);
    let empty = all.apply(&embedder, Prompt::default(), &mut Replay::default()).unwrap();
    assert!(empty.class.is_none());
}

#[test]
fn refusals() {
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
    assert!(error.starts_with("this model has no class that means no class"), "{error}");
}
