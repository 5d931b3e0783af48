//! Parameters of the published models' conditioners, and the names and configs of transformers and diffusers;
//! `golden/generate.py` ran them.

use std::collections::{BTreeMap, BTreeSet};

use ldm_checkpoint::Shapes;
use ldm_conditioning::{
    BertConfig, ClipTextConfig, ConditionerConfig, diffusers_layout, from_diffusers, to_diffusers,
};
use ldm_core::nn::skip_init;
use serde::Deserialize;
use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use tch::Device;
use tch::nn::VarStore;

use crate::golden;

#[derive(Deserialize)]
struct Manifest {
    models: BTreeMap<String, Model>,
    foreign: Exported,
}

#[derive(Deserialize)]
struct Model {
    config: ConditionerConfig,
    tensors: usize,
    parameters: i64,
    sha256: String,
}

#[derive(Debug, PartialEq, Deserialize)]
struct Summary {
    tensors: usize,
    parameters: i64,
    sha256: String,
}

#[derive(Deserialize)]
struct Exported {
    bert: Bert,
    bert_names: Summary,
    clip_config: Value,
    clip_names: Summary,
    clip_names_since_5: Summary,
}

#[derive(Deserialize)]
struct Bert {
    table: BTreeMap<String, String>,
    config: Value,
    params: Value,
}

fn manifest() -> Manifest {
    serde_json::from_str(&std::fs::read_to_string(golden("manifest.json")).unwrap()).unwrap()
}

/// Names and shapes of a conditioner's parameters, uninitialized: the largest would take 2.3 GB.
fn shapes_of(config: &ConditionerConfig) -> Shapes {
    let vs = VarStore::new(Device::Cpu);
    skip_init(|| config.build(&vs.root(), None)).unwrap();
    vs.variables().into_iter().map(|(name, tensor)| (name, tensor.size())).collect()
}

/// As `made_of` of `generate.py`.
fn summary(shapes: &Shapes) -> Summary {
    let mut lines: Vec<String> = shapes.iter().map(|(name, shape)| format!("{name} {shape:?}\n")).collect();
    lines.sort();
    let hash = Sha256::digest(lines.concat());
    Summary {
        tensors: shapes.len(),
        parameters: shapes.values().map(|shape| shape.iter().product::<i64>()).sum(),
        sha256: hash.iter().fold(String::new(), |text, byte| format!("{text}{byte:02x}")),
    }
}

#[test]
fn published_models() {
    let models = manifest().models;
    for (name, model) in &models {
        let Model { config, tensors, parameters, sha256 } = model;
        let want = Summary { tensors: *tensors, parameters: *parameters, sha256: sha256.clone() };
        assert_eq!(summary(&shapes_of(config)), want, "{name}");
    }
    let parameters: BTreeMap<&str, i64> =
        models.iter().map(|(name, model)| (name.as_str(), model.parameters)).collect();
    let want = [
        ("bsr_sr", 0),
        ("cin256-v2", 1001 * 512),
        ("layout2img-openimages256", 58_858_496),
        ("rdm768x768", 0),
        ("semantic_synthesis256", 546),
        ("text2img256", 186_154_682),
        ("txt2img-1p4B-eval", 581_994_042),
        ("v1-inference", 123_060_480),
    ];
    assert_eq!(parameters, want.into());
}

#[test]
fn tokenizers_and_channels() {
    let answers: BTreeMap<String, String> = manifest()
        .models
        .into_iter()
        .map(|(name, Model { config, .. })| {
            let kind = config.tokenizer_kind().map(|kind| kind.to_string());
            (name, format!("{kind:?} {:?} {:?}", config.context_dim(), config.concat_channels()))
        })
        .collect();
    let want = [
        ("bsr_sr", "None None None"),
        ("cin256-v2", "None Some(512) None"),
        ("layout2img-openimages256", "None Some(512) None"),
        ("rdm768x768", "None None None"),
        ("semantic_synthesis256", "None None Some(3)"),
        ("text2img256", "Some(\"bert\") Some(640) None"),
        ("txt2img-1p4B-eval", "Some(\"bert\") Some(1280) None"),
        ("v1-inference", "Some(\"clip\") Some(768) None"),
    ];
    assert_eq!(answers, want.map(|(name, answer)| (name.to_owned(), answer.to_owned())).into());
}

#[test]
fn bert_names_map_to_diffusers() {
    let Exported { bert, bert_names, .. } = manifest().foreign;
    let config = ConditionerConfig::Bert(serde_json::from_value(bert.params).unwrap());
    let layout = diffusers_layout(&config).unwrap();
    let native = shapes_of(&config);
    let mapped = layout.mapped_shapes(&native);
    assert_eq!(mapped.keys().collect::<BTreeSet<_>>(), bert.table.keys().collect());
    let back = layout.keys.inverse();
    for (theirs, ours) in &bert.table {
        assert_eq!(layout.keys.apply(theirs), *ours);
        assert_eq!(back.apply(ours), *theirs);
    }
    let large =
        ConditionerConfig::Bert(serde_json::from_value(json!({"n_embed": 1280, "n_layer": 32})).unwrap());
    let layout = diffusers_layout(&large).unwrap();
    assert_eq!(summary(&layout.mapped_shapes(&shapes_of(&large))), bert_names);
}

#[test]
fn clip_names_map_to_transformers() {
    let Exported { clip_names, clip_names_since_5, .. } = manifest().foreign;
    let config = ConditionerConfig::ClipText(ClipTextConfig::default());
    let layout = diffusers_layout(&config).unwrap();
    let native = shapes_of(&config);
    let mapped = layout.mapped_shapes(&native);
    assert_eq!(summary(&mapped), clip_names);
    for name in mapped.keys() {
        assert!(native.contains_key(&layout.keys.apply(name)), "{name}");
        assert_eq!(layout.keys.inverse().apply(&layout.keys.apply(name)), *name);
    }
    // transformers 5 omits `text_model.`.
    let bare: Shapes =
        mapped.into_iter().map(|(name, shape)| (name["text_model.".len()..].to_owned(), shape)).collect();
    assert_eq!(summary(&bare), clip_names_since_5);
    let native_names: BTreeSet<String> = bare.keys().map(|name| layout.keys.apply(name)).collect();
    assert_eq!(native_names, native.into_keys().collect());
    let ids = layout.keys.apply("text_model.embeddings.position_ids");
    let others = ["transformer.text_projection", "transformer.logit_scale", "text_projection", "logit_scale"];
    assert_eq!([&[ids.as_str()], &others as &[&str]].concat(), config.ignored_names());
}

#[test]
fn configs_convert_both_ways() {
    let exported = manifest().foreign;
    for (config, theirs) in [
        (ConditionerConfig::ClipText(ClipTextConfig::default()), &exported.clip_config),
        (
            ConditionerConfig::Bert(serde_json::from_value(exported.bert.params).unwrap()),
            &exported.bert.config,
        ),
    ] {
        assert_eq!(from_diffusers(theirs).unwrap(), config);
        let written = to_diffusers(&config).unwrap();
        assert_eq!(from_diffusers(&written).unwrap(), config);
        for (key, value) in written.as_object().unwrap() {
            // Acts only in training, where the value of CompVis applies.
            if key != "dropout" {
                assert_eq!(theirs.get(key), Some(value), "{key}");
            }
        }
    }
    let gelu = ClipTextConfig { hidden_act: ldm_conditioning::Activation::Gelu, ..ClipTextConfig::default() };
    let gelu = ConditionerConfig::ClipText(gelu);
    assert_eq!(from_diffusers(&to_diffusers(&gelu).unwrap()).unwrap(), gelu);
}

#[test]
fn unsupported_values_are_refused() {
    let clip = |key: &str, value: Value| json!({"model_type": "clip_text_model", key: value});
    let bert = |key: &str, value: Value| json!({"model_type": "ldmbert", key: value});
    for (json, message) in [
        (clip("hidden_act", json!("relu")), "`hidden_act`: expected quick_gelu or gelu, got \"relu\""),
        (clip("hidden_size", json!("wide")), "`hidden_size`: expected a whole number, got \"wide\""),
        (
            clip("num_attention_heads", json!(7)),
            "clip_text conditioning: num_attention_heads: expected a divisor of hidden_size 512, got 7",
        ),
        (bert("head_dim", json!(32)), "`head_dim`: expected 64, got 32"),
        (bert("scale_embedding", json!(true)), "`scale_embedding`: expected false, got true"),
        (bert("encoder_ffn_dim", json!(64)), "`encoder_ffn_dim`: expected 5120, 4 times d_model, got 64"),
        (
            bert("activation_function", json!("relu")),
            "`activation_function`: expected \"gelu\", got \"relu\"",
        ),
        (json!({"model_type": "bert"}), "`model_type`: expected clip_text_model or ldmbert, got \"bert\""),
        (json!({}), "`model_type`: expected clip_text_model or ldmbert, got nothing"),
        (json!([]), "expected a JSON object"),
    ] {
        assert_eq!(from_diffusers(&json).unwrap_err().to_string(), message);
    }
    let layout = BertConfig {
        n_embed: 8,
        n_layer: 1,
        vocab_size: 9,
        max_seq_len: 4,
        device: None,
        use_tokenizer: false,
        embedding_dropout: 0.,
    };
    assert_eq!(
        to_diffusers(&ConditionerConfig::Bert(layout)).unwrap_err().to_string(),
        "use_tokenizer: expected true (the only value in diffusers), got false",
    );
    for (config, word) in [
        (ConditionerConfig::Identity, "identity"),
        (ConditionerConfig::Unconditional, "__is_unconditional__"),
    ] {
        let message = format!("target: expected clip_text or bert, which diffusers has, got {word}");
        assert_eq!(to_diffusers(&config).unwrap_err().to_string(), message);
        assert_eq!(diffusers_layout(&config).unwrap_err().to_string(), message);
    }
}
