//! `cond_stage_config` as the reference's files write it, and every way to write it wrongly.

#![allow(clippy::unwrap_used, reason = "clippy knows tests, not the functions beside them")]

use ldm_conditioning::{ClassConfig, ConditionerConfig};
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
fn as_the_reference_writes_it() {
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

#[test]
fn what_is_written_reads_the_same() {
    for want in [ConditionerConfig::Unconditional, ConditionerConfig::FirstStage, class(11)] {
        let text = serde_yaml::to_string(&Model { cond_stage_config: want.clone() }).unwrap();
        assert_eq!(parse(&text).unwrap(), want, "{text}");
    }
}

#[track_caller]
fn check_refusal(text: &str, message: &str) {
    assert_eq!(parse(text).unwrap_err().to_string(), format!("model.yaml: cond_stage_config{message}"));
}

#[test]
fn refusals() {
    check_refusal(
        "cond_stage_config: __is_uncond__\n",
        ": invalid value: string \"__is_uncond__\", expected __is_unconditional__, __is_first_stage__, or a map of target and params at line 1 column 20",
    );
    check_refusal(
        "cond_stage_config: 7\n",
        ": invalid type: integer `7`, expected __is_unconditional__, __is_first_stage__, or a map of target and params at line 1 column 20",
    );
    check_refusal(
        "cond_stage_config:\n  target: ldm.modules.encoders.modules.BERTEmbedder\n  params: {n_embed: 1}\n",
        ".target: unknown variant `ldm.modules.encoders.modules.BERTEmbedder`, expected `class` or `ldm.modules.encoders.modules.ClassEmbedder` at line 2 column 11",
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
fn building() {
    let vs = VarStore::new(test_device());
    let root = vs.root() / "cond_stage_model";
    let prompt = Prompt::class(&[3]);
    let nothing = ConditionerConfig::Unconditional.build(&root).unwrap();
    assert!(nothing.condition(&prompt, false).unwrap().context.is_none());
    assert!(nothing.unconditional(3).unwrap().context.is_none());
    assert!(vs.is_empty());
    let context = class(1001).build(&root).unwrap().condition(&prompt, false).unwrap().context.unwrap();
    assert_eq!(context.size(), [1, 1, 512]);
    assert_eq!(vs.variables()["cond_stage_model.embedding.weight"].size(), [1001, 512]);
    assert_eq!(
        ConditionerConfig::FirstStage.build(&root).unwrap_err().to_string(),
        "conditioning by the first stage is not here yet, expected __is_unconditional__ or the target class, got \
         __is_first_stage__",
    );
}
