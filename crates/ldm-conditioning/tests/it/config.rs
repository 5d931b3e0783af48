//! `cond_stage_config` in the notation of CompVis, and invalid ones.

use ldm_conditioning::{
    Activation, BertConfig, ClassConfig, ClipImageConfig, ClipTextConfig, ClipTextPooledConfig,
    ConditionerConfig, OpenAiSizes, RescaleMethod, SpatialConfig, TransformerConfig,
};
use ldm_core::device::test_device;
use ldm_core::{Prompt, config};
use serde::{Deserialize, Serialize};
use tch::nn::VarStore;

#[derive(Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
struct Model {
    cond_stage_config: ConditionerConfig,
}

fn parse(text: &str) -> ldm_core::Result<ConditionerConfig> {
    config::parse::<Model>(text, "model.yaml", &[]).map(|model| model.cond_stage_config)
}

fn class(n_classes: i64) -> ConditionerConfig {
    ConditionerConfig::Class(ClassConfig {
        embed_dim: 512,
        n_classes,
        key: "class_label".into(),
        null_class: None,
    })
}

#[test]
fn files_of_the_reference_load() {
    let cin = "
cond_stage_config:
  target: ldm.modules.encoders.modules.ClassEmbedder
  params:
    n_classes: 1001
    embed_dim: 512
    key: class_label
";
    assert_eq!(parse(cin).unwrap(), class(1001));
    let without = cin.replace("    n_classes: 1001\n", "");
    assert_eq!(parse(&without).unwrap(), class(1000));
    let short = cin.replace("ldm.modules.encoders.modules.ClassEmbedder", "class");
    assert_eq!(parse(&short).unwrap(), class(1001));
    for word in ["__is_unconditional__", "\"__is_unconditional__\""] {
        let text = format!("cond_stage_config: {word}\n");
        assert_eq!(parse(&text).unwrap(), ConditionerConfig::Unconditional);
    }
    assert_eq!(parse("cond_stage_config: __is_first_stage__\n").unwrap(), ConditionerConfig::FirstStage);
}

fn bert() -> BertConfig {
    BertConfig {
        n_embed: 512,
        n_layer: 16,
        vocab_size: 8192,
        max_seq_len: 92,
        device: None,
        use_tokenizer: false,
        embedding_dropout: 0.,
    }
}

fn transformer() -> TransformerConfig {
    TransformerConfig {
        n_embed: 64,
        n_layer: 2,
        vocab_size: 10,
        max_seq_len: 77,
        device: Some("cuda".into()),
    }
}

/// Checks CompVis' target and ours.
#[track_caller]
fn check(module: &str, short: &str, params: &str, want: &ConditionerConfig) {
    for target in [module, short] {
        let text = format!("cond_stage_config:\n  target: {target}\n{params}");
        assert_eq!(parse(&text).unwrap(), *want, "{text}");
    }
}

#[test]
fn every_conditioner_of_the_reference() {
    let at = |name: &str| format!("ldm.modules.encoders.modules.{name}");
    let layout =
        "  params: {n_embed: 512, n_layer: 16, vocab_size: 8192, max_seq_len: 92, use_tokenizer: false}\n";
    check(&at("BERTEmbedder"), "bert", layout, &ConditionerConfig::Bert(bert()));
    let text = BertConfig {
        n_embed: 1280,
        n_layer: 32,
        vocab_size: 30522,
        max_seq_len: 77,
        device: Some("cpu".into()),
        use_tokenizer: true,
        embedding_dropout: 0.1,
    };
    let params = "  params: {n_embed: 1280, n_layer: 32, device: cpu, embedding_dropout: 0.1}\n";
    check(&at("BERTEmbedder"), "bert", params, &ConditionerConfig::Bert(text));
    let params = "  params: {n_embed: 64, n_layer: 2, vocab_size: 10, device: cuda}\n";
    check(&at("TransformerEmbedder"), "transformer", params, &ConditionerConfig::Transformer(transformer()));

    let clip = ConditionerConfig::ClipText(ClipTextConfig::default());
    let full = "  params: {version: openai/clip-vit-large-patch14, max_length: 77, hidden_size: 768}\n";
    for params in ["", "  params: {}\n", full] {
        check(&at("FrozenCLIPEmbedder"), "clip_text", params, &clip);
    }
    let semantic =
        SpatialConfig { n_stages: 2, in_channels: 182, out_channels: Some(3), ..SpatialConfig::default() };
    let params = "  params:\n    n_stages: 2\n    in_channels: 182\n    out_channels: 3\n";
    check(&at("SpatialRescaler"), "spatial", params, &ConditionerConfig::Spatial(semantic));
    let default = SpatialConfig {
        n_stages: 1,
        method: RescaleMethod::Bilinear,
        multiplier: 0.5,
        in_channels: 3,
        out_channels: None,
        bias: false,
    };
    check(&at("SpatialRescaler"), "spatial", "", &ConditionerConfig::Spatial(default));
    for params in ["", "  params: {}\n"] {
        check("torch.nn.Identity", "identity", params, &ConditionerConfig::Identity);
    }
}

#[test]
fn configs_round_trip() {
    let spatial =
        SpatialConfig { method: RescaleMethod::Area, out_channels: Some(2), ..SpatialConfig::default() };
    for want in [
        ConditionerConfig::Unconditional,
        ConditionerConfig::FirstStage,
        class(11),
        ConditionerConfig::Bert(bert()),
        ConditionerConfig::Transformer(transformer()),
        ConditionerConfig::ClipText(ClipTextConfig {
            hidden_act: Activation::Gelu,
            ..ClipTextConfig::default()
        }),
        ConditionerConfig::ClipTextPooled(ClipTextPooledConfig {
            n_repeat: 2,
            sizes: OpenAiSizes::of_version("ViT-B/16"),
            ..ClipTextPooledConfig::default()
        }),
        ConditionerConfig::ClipImage(ClipImageConfig {
            model: "ViT-L/14".into(),
            jit: Some(false),
            device: None,
            antialias: false,
            sizes: None,
        }),
        ConditionerConfig::Spatial(spatial),
        ConditionerConfig::Identity,
    ] {
        let text = serde_yaml::to_string(&Model { cond_stage_config: want.clone() }).unwrap();
        assert_eq!(parse(&text).unwrap(), want, "{text}");
    }
}

#[track_caller]
fn check_refusal(text: &str, message: &str) {
    assert_eq!(parse(text).unwrap_err().to_string(), format!("model.yaml: cond_stage_config{message}"));
}

#[test]
fn invalid_configs_are_refused() {
    check_refusal(
        "cond_stage_config: __is_uncond__\n",
        ": invalid value: string \"__is_uncond__\", expected __is_unconditional__, __is_first_stage__, or a map of target and params at line 1 column 20",
    );
    check_refusal(
        "cond_stage_config: 7\n",
        ": invalid type: integer `7`, expected __is_unconditional__, __is_first_stage__, or a map of target and params at line 1 column 20",
    );
    let error = parse("cond_stage_config:\n  target: ldm.modules.encoders.modules.FrozenOpenCLIPEmbedder\n")
        .unwrap_err()
        .to_string();
    let known =
        "unknown variant `ldm.modules.encoders.modules.FrozenOpenCLIPEmbedder`, expected one of `class`,";
    assert!(error.contains(known) && error.contains("`torch.nn.Identity`"), "{error}");
    check_refusal(
        "cond_stage_config:\n  target: identity\n  params: {n: 1}\n",
        ".params: unknown field `n`, there are no fields at line 3 column 12",
    );
    check_refusal(
        "cond_stage_config:\n  target: spatial\n  params: {method: lanczos}\n",
        ".params.method: unknown variant `lanczos`, expected one of `nearest`, `linear`, `bilinear`, `trilinear`, `bicubic`, `area` at line 3 column 20",
    );
    check_refusal(
        "cond_stage_config:\n  target: class\n  params:\n    embed_dim: 8\n    n_clases: 4\n",
        ".params: unknown field `n_clases`, expected one of `embed_dim`, `n_classes`, `key`, `null_class` at line 5 column 5",
    );
    check_refusal(
        "cond_stage_config:\n  target: class\n  params:\n    n_classes: 4\n",
        ".params: missing field `embed_dim` at line 4 column 5",
    );
    check_refusal("cond_stage_config:\n  target: class\n", ": missing field `params` at line 2 column 3");
}

#[test]
fn conditioners_are_built() {
    let vs = VarStore::new(test_device());
    let root = vs.root() / "cond_stage_model";
    let prompt = Prompt::class(&[3]);
    let unconditional = ConditionerConfig::Unconditional.build(&root, None).unwrap();
    assert!(unconditional.condition(&prompt, false).unwrap().context.is_none());
    assert!(unconditional.unconditional(3).unwrap().context.is_none());
    assert!(vs.is_empty());
    let context = class(1001).build(&root, None).unwrap().condition(&prompt, false).unwrap().context.unwrap();
    assert_eq!(context.size(), [1, 1, 512]);
    assert_eq!(vs.variables()["cond_stage_model.embedding.weight"].size(), [1001, 512]);
    assert_eq!(
        ConditionerConfig::FirstStage.build(&root, None).unwrap_err().to_string(),
        "cond_stage_config: expected a separate conditioner, got __is_first_stage__, which requires a whole model",
    );
}
