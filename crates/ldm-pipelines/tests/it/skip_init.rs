//! `skip_init` draws no random numbers.
//!
//! The test observes libtorch's global generator, from which other tests draw, so it runs in its own process.

use std::path::Path;
use std::process::Command;

use ldm_conditioning::ConditionerConfig;
use ldm_core::nn::skip_init;
use ldm_pipelines::{ModelConfig, ModelFile};
use ldm_unet::{EncoderUNet, UNet};
use serde_json::json;
use tch::nn::{self, VarStore};
use tch::{Device, Kind, Tensor};

/// Set in the child process.
const CHILD: &str = "LDM_TEST_SKIP_INIT";

/// The generator's next numbers after `build`, from a fixed seed.
fn next_after(build: &dyn Fn(&nn::Path)) -> Vec<f32> {
    tch::manual_seed(5);
    build(&VarStore::new(Device::Cpu).root());
    Vec::try_from(&Tensor::rand([8], (Kind::Float, Device::Cpu))).unwrap()
}

#[track_caller]
fn check(what: &str, build: impl Fn(&nn::Path)) {
    let untouched = next_after(&|_| ());
    assert_ne!(next_after(&build), untouched, "{what}: draws its parameters");
    assert_eq!(next_after(&|vs| skip_init(|| build(vs))), untouched, "{what}: skip_init");
}

#[test]
fn skip_init_draws_no_random_numbers() {
    if std::env::var_os(CHILD).is_none() {
        let child = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "skip_init::skip_init_draws_no_random_numbers"])
            .env(CHILD, "1")
            .output()
            .unwrap();
        let output = String::from_utf8_lossy(&child.stdout) + String::from_utf8_lossy(&child.stderr);
        assert!(child.status.success() && output.contains("1 passed"), "{output}");
        return;
    }
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../configs/experiments/tiny");
    let mut conditioners = 0;
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        let name = path.file_name().unwrap().to_string_lossy().into_owned();
        let config = ModelFile::read(&path, &[]).unwrap().model;
        let first_stage = match &config {
            ModelConfig::LatentDiffusion(model) => {
                check(&format!("{name}, U-Net"), |vs| drop(UNet::new(vs, model.unet()).unwrap()));
                let conditioner = &model.cond_stage_config;
                if !matches!(conditioner, ConditionerConfig::FirstStage | ConditionerConfig::Identity) {
                    check(&format!("{name}, conditioner"), |vs| drop(conditioner.build(vs, None).unwrap()));
                    conditioners += 1;
                }
                model.first_stage_config.clone()
            }
            alone => alone.first_stage().unwrap(),
        };
        let build = |vs: &nn::Path| drop(ldm_autoencoder::build(vs, &first_stage).unwrap());
        check(&format!("{name}, first stage"), build);
    }
    assert_eq!(conditioners, 5, "a class, two kinds of text, a layout, a map");

    let sizes = json!({
        "image_size": 8, "in_channels": 3, "out_channels": 4, "model_channels": 32, "num_res_blocks": 1,
        "attention_resolutions": [1], "channel_mult": [1, 1], "num_head_channels": 16,
    });
    let with = |key: &str, value: serde_json::Value| {
        let mut config = sizes.clone();
        config[key] = value;
        config
    };
    let labeled = serde_json::from_value(with("num_classes", 10.into())).unwrap();
    check("labels", |vs| drop(UNet::new(vs, &labeled).unwrap()));
    let ids = serde_json::from_value(with("n_embed", 10.into())).unwrap();
    check("ids", |vs| drop(UNet::new(vs, &ids).unwrap()));
    for pool in ["adaptive", "attention", "spatial", "spatial_v2"] {
        let classifier = serde_json::from_value(with("pool", pool.into())).unwrap();
        check(pool, |vs| drop(EncoderUNet::new(vs, &classifier).unwrap()));
    }
}
