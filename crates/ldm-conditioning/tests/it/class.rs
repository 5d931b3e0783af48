//! The class embedder against CompVis', its null class, and its errors.

use ldm_conditioning::{ClassConfig, ClassEmbedder, Conditioner};
use ldm_core::Prompt;
use ldm_core::device::test_device;
use ldm_testing::assert_close;
use tch::nn::VarStore;
use tch::{Kind, Tensor};

use crate::open_golden;

fn config(n_classes: i64, null_class: Option<i64>) -> ClassConfig {
    ClassConfig { embed_dim: 8, n_classes, key: "class".into(), null_class }
}

fn embedder(n_classes: i64, null_class: Option<i64>) -> (VarStore, ClassEmbedder) {
    let vs = VarStore::new(test_device());
    let embedder = ClassEmbedder::new(&vs.root(), &config(n_classes, null_class)).unwrap();
    (vs, embedder)
}

#[test]
fn equals_the_reference() {
    let golden = open_golden("class.safetensors");
    let config: ClassConfig = serde_json::from_str(golden.metadata("config")).unwrap();
    let vs = VarStore::new(test_device());
    let embedder = ClassEmbedder::new(&vs.root(), &config).unwrap();
    golden.load_weights(&vs);
    let prompt = Prompt { class: Some(golden.get("class").shallow_clone()), ..Prompt::default() };
    let conditioning = embedder.condition(&prompt, false).unwrap();
    assert_close("context", &conditioning.context.unwrap(), golden.get("context"), 1e-7);
    assert!(conditioning.concat.is_none() && conditioning.label.is_none());
}

#[test]
fn classes_may_be_on_the_cpu() {
    let (_vs, embedder) = embedder(10, None);
    let context = embedder.condition(&Prompt::class(&[1, 9]), true).unwrap().context.unwrap();
    assert_eq!(context.size(), [2, 1, 8]);
    assert_eq!(context.device(), test_device());
    assert!(context.requires_grad(), "the table is trained with the U-Net");
}

#[test]
fn the_table_is_initialized_with_unit_variance() {
    let (vs, _) = embedder(5000, None);
    let table = &vs.variables()["embedding.weight"];
    assert_eq!(table.size(), [5000, 8]);
    let (mean, deviation) = (table.mean(Kind::Float), table.std(true));
    assert!(mean.double_value(&[]).abs() < 0.03 && (deviation.double_value(&[]) - 1.).abs() < 0.03);
}

#[test]
fn the_null_class() {
    for (n_classes, given, want) in
        [(1001, None, Some(1000)), (1001, Some(3), Some(3)), (11, Some(10), Some(10))]
    {
        let (_vs, embedder) = embedder(n_classes, given);
        assert_eq!(embedder.null_class(), want);
        let class = embedder.null_prompt(2).unwrap().class.unwrap();
        assert_eq!(Vec::<i64>::try_from(class).unwrap(), [want.unwrap(); 2]);
        let context = embedder.unconditional(2).unwrap().context.unwrap();
        let want = embedder.condition(&Prompt::class(&[want.unwrap(); 2]), false).unwrap().context.unwrap();
        assert_eq!(context, want);
    }
    let (_vs, embedder) = embedder(1000, None);
    assert_eq!(
        embedder.unconditional(2).unwrap_err().to_string(),
        "null_class: expected a null class for guidance or conditioning dropout, got none; try setting it in the parameters \
         of the class embedder",
    );
}

#[track_caller]
fn check_refusal(prompt: &Prompt, message: &str) {
    let (_vs, embedder) = embedder(10, None);
    assert_eq!(embedder.condition(prompt, false).unwrap_err().to_string(), message);
}

#[test]
fn invalid_prompts_are_refused() {
    check_refusal(&Prompt::class(&[3, 10]), "class: expected 0 to 9, got 10");
    check_refusal(&Prompt::class(&[-1, 4]), "class: expected 0 to 9, got -1");
    check_refusal(&Prompt::text(["a cat"]), "this model is conditioned on `class`, and the prompt has none");
    let matrix = Prompt { class: Some(Tensor::from_slice2(&[[1_i64, 2]])), ..Prompt::default() };
    check_refusal(&matrix, "class: expected shape [B], got [1, 2]");
    let fraction = Prompt { class: Some(Tensor::from_slice(&[1.5_f32])), ..Prompt::default() };
    check_refusal(&fraction, "class: expected a list of integers, got Float");
}

#[test]
fn invalid_configs_are_refused() {
    for (config, message) in [
        (config(0, None), "class conditioning: n_classes: expected at least 1, got 0"),
        (
            ClassConfig { embed_dim: -4, ..config(10, None) },
            "class conditioning: embed_dim: expected at least 1, got -4",
        ),
        (config(10, Some(10)), "null_class: expected one of 0 to 9, got 10"),
        (config(10, Some(-1)), "null_class: expected one of 0 to 9, got -1"),
    ] {
        let vs = VarStore::new(test_device());
        assert_eq!(ClassEmbedder::new(&vs.root(), &config).unwrap_err().to_string(), message);
    }
}
