//! Conditioners on embeddings of OpenAI's CLIP against CompVis; `golden/generate_openai.py` made the file.

use std::collections::BTreeMap;

use ldm_checkpoint::{Checkpoint, Shapes};
use ldm_conditioning::{Conditioner, ConditionerConfig, Tokenizer, TokenizerKind};
use ldm_core::Prompt;
use ldm_core::device::test_device;
use ldm_testing::{Golden, assert_close, fill_weights, shared_data};
use serde_json::{Value, json};
use tch::nn::VarStore;
use tch::{Kind, Tensor};

use crate::open_golden;

const TEXT: &str = "ldm.modules.encoders.modules.FrozenCLIPTextEmbedder";
const IMAGE: &str = "ldm.modules.encoders.modules.FrozenClipImageEmbedder";

fn golden() -> Golden {
    open_golden("openai_clip.safetensors")
}

fn config(golden: &Golden, target: &str, mut params: Value) -> ConditionerConfig {
    params["sizes"] = serde_json::from_str(golden.metadata("sizes")).unwrap();
    serde_json::from_value(json!({ "target": target, "params": params })).unwrap()
}

fn build(config: &ConditionerConfig, tokenizer: Option<Tokenizer>) -> (VarStore, Box<dyn Conditioner>) {
    let vs = VarStore::new(test_device());
    let conditioner = config.build(&vs.root(), tokenizer).unwrap();
    fill_weights(&vs, 5);
    (vs, conditioner)
}

fn context(conditioner: &dyn Conditioner, prompt: &Prompt) -> Tensor {
    conditioner.condition(prompt, false).unwrap().context.unwrap()
}

#[test]
fn text_embeddings_equal_compvis() {
    let golden = golden();
    let texts: Vec<String> = serde_json::from_str(golden.metadata("texts")).unwrap();
    for (params, wanted) in
        [(json!({ "n_repeat": 1 }), "text"), (json!({ "n_repeat": 3, "normalize": false }), "text_repeated")]
    {
        let config = config(&golden, TEXT, params);
        assert_eq!((config.context_dim(), config.tokenizer_kind()), (Some(12), Some(TokenizerKind::Clip)));
        let (_, embedder) = build(&config, None);
        let tokens = golden.get("tokens").shallow_clone();
        let by_tokens = context(&*embedder, &Prompt { tokens: Some(tokens), ..Prompt::default() });
        assert_close(wanted, &by_tokens, golden.get(wanted), 1e-5);
        if let Some(data) = shared_data() {
            let tokenizer = Tokenizer::open(TokenizerKind::Clip, data.join("tokenizers")).unwrap();
            let (_, embedder) = build(&config, Some(tokenizer));
            let by_text = context(&*embedder, &Prompt::text(texts.clone()));
            assert_close(wanted, &by_text, golden.get(wanted), 1e-5);
            let null = embedder.unconditional(1).unwrap().context.unwrap();
            assert_close("null", &null, &golden.get(wanted).narrow(0, 1, 1), 1e-5);
        }
    }
}

#[test]
fn image_embeddings_equal_compvis() {
    let golden = golden();
    let config = config(&golden, IMAGE, json!({ "model": "ViT" }));
    assert_eq!((config.context_dim(), config.tokenizer_kind()), (Some(12), None));
    let (_, embedder) = build(&config, None);
    for name in ["small", "tall"] {
        let image = golden.get(&format!("images.{name}")).shallow_clone();
        let made = context(&*embedder, &Prompt { image: Some(image), ..Prompt::default() });
        assert_close(name, &made.squeeze_dim(1), golden.get(&format!("image.{name}")), 1e-5);
    }
    let gray = Tensor::zeros([1, 1, 8, 8], (Kind::Float, test_device()));
    let error = embedder.condition(&Prompt { image: Some(gray), ..Prompt::default() }, false).unwrap_err();
    assert_eq!(error.to_string(), "image: expected shape [B, 3, H, W], got [1, 1, 8, 8]");
    assert!(embedder.null_prompt(1).is_err());
}

#[test]
fn parameters_are_those_of_compvis_and_frozen() {
    let golden = golden();
    let shapes: Shapes = serde_json::from_str(golden.metadata("shapes")).unwrap();
    for (target, params) in [(TEXT, json!({})), (IMAGE, json!({ "model": "ViT" }))] {
        let config = config(&golden, target, params);
        let (vs, _) = build(&config, None);
        let own: Shapes = vs.variables().into_iter().map(|(name, value)| (name, value.size())).collect();
        assert_eq!(own, shapes);
        assert!(vs.variables().values().all(|value| !value.requires_grad()));
        // A file of CompVis also has CLIP's scale.
        let mut tensors: Vec<(String, Tensor)> = vs.variables().into_iter().collect();
        tensors.push(("model.logit_scale".into(), Tensor::from(1_f32)));
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("clip.safetensors");
        ldm_checkpoint::save(&path, &tensors, &BTreeMap::new()).unwrap();
        Checkpoint::open(&path).unwrap().without(config.ignored_names()).load_scope(&vs, "").unwrap();
    }
}

#[test]
fn configs_of_compvis_are_read_and_others_refused() {
    let read = |target: &str, params: Value| {
        let config: ConditionerConfig =
            serde_json::from_value(json!({ "target": target, "params": params })).unwrap();
        (config.context_dim(), config)
    };
    assert_eq!(read(TEXT, json!({ "version": "ViT-B/32", "device": "cpu", "max_length": 77 })).0, Some(512));
    assert_eq!(read(TEXT, json!({})).0, Some(768));
    assert_eq!(read(IMAGE, json!({ "model": "ViT-L/14", "jit": false })).0, Some(768));
    for (target, params, message) in [
        (
            IMAGE,
            json!({ "model": "RN50" }),
            "model: expected ViT-B/32, ViT-B/16, ViT-L/14, or `sizes`, got RN50",
        ),
        (
            IMAGE,
            json!({ "model": "ViT-L/14", "antialias": true }),
            "antialias: expected false, the default, got true",
        ),
        (
            TEXT,
            json!({ "version": "x" }),
            "version: expected ViT-B/32, ViT-B/16, ViT-L/14, or `sizes`, got x",
        ),
        (
            TEXT,
            json!({ "n_repeat": 0 }),
            "clip_text_pooled conditioning: n_repeat: expected at least 1, got 0",
        ),
    ] {
        let vs = VarStore::new(test_device());
        let error = read(target, params).1.build(&vs.root(), None).unwrap_err();
        assert_eq!(error.to_string(), message);
    }
}
