//! Changes of a model's config on loading, as CompVis' `sample_diffusion.py` takes them.

use std::path::Path;

use ldm_pipelines::{LoadOptions, Model};
use ldm_schedulers::Parameterization;
use tch::Device;

use crate::convert::{options, run, write_filled};

fn open(path: &Path, config: Option<&Path>, overrides: &[&str]) -> ldm_core::Result<Model> {
    let overrides = overrides.iter().map(|each| (*each).to_owned()).collect();
    let config = config.map(Path::to_path_buf);
    let how = LoadOptions { config, overrides, ..LoadOptions::new(Device::Cpu) };
    Model::open(path, &how, &mut |_| {})
}

#[test]
fn keys_of_the_config_are_changed_or_refused() {
    let root = tempfile::tempdir().unwrap();
    let at = |name: &str| root.path().join(name);
    write_filled(&at("model"), "diffusion-class.yaml", &[], 3);
    let overrides = ["model.params.parameterization=x0", "model.params.v_posterior=0.5"];
    let diffusion = |path: &Path, config: Option<&Path>, overrides: &[&str]| {
        let Model::Diffusion(model) = open(path, config, overrides).unwrap() else {
            panic!("a diffusion model")
        };
        model
    };
    // A folder with its config, and a file with another.
    std::fs::create_dir(at("file")).unwrap();
    std::fs::copy(at("model/model.safetensors"), at("file/weights.safetensors")).unwrap();
    let config = at("model/config.yaml");
    for (path, config) in [(at("model"), None), (at("file/weights.safetensors"), Some(config.as_path()))] {
        assert_eq!(diffusion(&path, config, &[]).parameterization, Parameterization::Eps);
        let model = diffusion(&path, config, &overrides);
        assert_eq!(model.parameterization, Parameterization::X0);
        assert!((model.config.v_posterior - 0.5).abs() < f64::EPSILON);
        for (wrong, expected) in [
            ("model.params.parametrization=v", "unknown field `parametrization`"),
            ("model.params.parameterization=w", "parameterization"),
            ("modle.params.parameterization=v", "unknown field `modle`"),
            ("model.params", "expected key.path=value"),
        ] {
            let error = open(&path, config, &[wrong]).unwrap_err().to_string();
            assert!(error.contains(expected), "{error}");
        }
    }
    // Weights that no longer fit.
    let wider = ["model.params.unet_config.params.model_channels=96"];
    let error = open(&at("model"), None, &wider).unwrap_err().to_string();
    assert!(error.contains("model.diffusion_model."), "{error}");
}

/// A config that is inferred from the weights is changed too.
#[test]
fn keys_of_an_inferred_config_are_changed_or_refused() {
    let root = tempfile::tempdir().unwrap();
    let at = |name: &str| root.path().join(name);
    write_filled(&at("first"), "first-stage-kl-f2.yaml", &[], 3);
    std::fs::remove_file(at("first/config.yaml")).unwrap();
    let path = at("first/model.safetensors");
    assert!(matches!(
        open(&path, None, &["model.params.ddconfig.dropout=0.1"]).unwrap(),
        Model::FirstStage(_)
    ));
    let error = open(&path, None, &["model.params.ddconfig.drop=0.1"]).unwrap_err().to_string();
    assert!(
        error.starts_with(&path.display().to_string()) && error.contains("unknown field `drop`"),
        "{error}"
    );
    let error = open(&path, None, &["model.params.embed_dim=7"]).unwrap_err().to_string();
    assert!(error.contains("quant_conv"), "{error}");
}

#[test]
fn a_diffusers_folder_has_no_such_config() {
    let root = tempfile::tempdir().unwrap();
    let at = |name: &str| root.path().join(name);
    let overrides = [
        "model.params.cond_stage_config=__is_unconditional__",
        "model.params.conditioning_key=null",
        "model.params.unet_config.params.use_spatial_transformer=false",
        "model.params.unet_config.params.context_dim=null",
    ];
    write_filled(&at("model"), "diffusion-class.yaml", &overrides, 3);
    run(&at("model"), &at("out"), &options(ldm_pipelines::ConvertTarget::Diffusers)).unwrap();
    let error = open(&at("out"), None, &["model.params.v_posterior=1"]).unwrap_err().to_string();
    assert!(
        error.ends_with("expected no KEY=VALUE for a diffusers folder, got model.params.v_posterior=1"),
        "{error}"
    );
}
