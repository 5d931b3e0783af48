//! Tokens of boxes against taming-transformers' builder (`golden/generate_layout.py`), and through a conditioner.

use ldm_conditioning::{BertConfig, BertEmbedder, Conditioner, LayoutTokens};
use ldm_core::{LayoutBox, Prompt};
use ldm_testing::{assert_close, fill_weights};
use serde_json::Value;
use tch::{Device, Tensor, nn};

use crate::golden;

fn cases() -> Vec<Value> {
    let document: Value = serde_json::from_slice(&std::fs::read(golden("layout.json")).unwrap()).unwrap();
    document["cases"].as_array().unwrap().clone()
}

fn rect(value: &Value) -> [f64; 4] {
    let sides: Vec<f64> =
        value.as_array().unwrap().iter().map(|side| side.as_str().unwrap().parse().unwrap()).collect();
    sides.try_into().unwrap()
}

fn boxes(case: &Value) -> Vec<LayoutBox> {
    let boxed = |each: &Value| LayoutBox { class: each[0].as_i64().unwrap(), rect: rect(&each[1]) };
    case["boxes"].as_array().unwrap().iter().map(boxed).collect()
}

#[test]
fn tokens_equal_the_builder() {
    let cases = cases();
    assert!(cases.len() >= 36, "{}", cases.len());
    for (number, case) in cases.iter().enumerate() {
        let expected: Vec<i64> =
            case["tokens"].as_array().unwrap().iter().map(|token| token.as_i64().unwrap()).collect();
        let crop = (!case["crop"].is_null()).then(|| vec![rect(&case["crop"])]);
        let encoder = LayoutTokens::new(8192, expected.len()).unwrap();
        let tokens = encoder.encode(&[boxes(case)], crop.as_deref()).unwrap();
        assert_eq!(Vec::<i64>::try_from(tokens.view([-1])).unwrap(), expected, "case {number}");
    }
}

/// A model without a tokenizer converts boxes to tokens itself.
#[test]
fn a_model_without_a_tokenizer_takes_boxes() {
    let config = BertConfig {
        n_embed: 16,
        n_layer: 1,
        vocab_size: 8192,
        max_seq_len: 92,
        device: None,
        use_tokenizer: false,
        embedding_dropout: 0.,
    };
    let vs = nn::VarStore::new(Device::Cpu);
    let model = BertEmbedder::new(&vs.root(), &config, None).unwrap();
    fill_weights(&vs, 3);
    let cases: Vec<Value> = cases().into_iter().filter(|case| !case["crop"].is_null()).take(4).collect();
    let tokens: Vec<i64> = cases
        .iter()
        .flat_map(|case| case["tokens"].as_array().unwrap())
        .map(|token| token.as_i64().unwrap())
        .collect();
    let given = Prompt { tokens: Some(Tensor::from_slice(&tokens).view([4, 92])), ..Prompt::default() };
    let boxed = Prompt {
        layout: Some(cases.iter().map(boxes).collect()),
        crops: Some(cases.iter().map(|case| rect(&case["crop"])).collect()),
        ..Prompt::default()
    };
    let context = |prompt: &Prompt| model.condition(prompt, false).unwrap().context.unwrap();
    assert_eq!(context(&boxed).size(), [4, 92, 16]);
    assert_close("a layout", &context(&boxed), &context(&given), 0.);
    let second = boxed.narrow(1, 2);
    assert_close("a sample of it", &context(&second), &context(&given.narrow(1, 2)), 1e-6);
}
