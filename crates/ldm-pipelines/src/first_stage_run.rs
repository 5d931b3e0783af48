//! First stages of other runs in the config of a diffusion model.

use std::path::{Path, PathBuf};

use ldm_autoencoder::{FirstStageConfig, KlConfig, VqConfig};
use ldm_core::config::{self, Value};
use ldm_core::{Error, Result};
use serde::Deserialize;

use crate::pixel_diffusion::resolve_pixel_diffusion;
use crate::{ModelConfig, ModelSource};

/// `params` of `first_stage_config: { target: run, … }`.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct RunParams {
    /// A run directory, a model folder, or a checkpoint file with its config next to it.
    path: PathBuf,
}

/// Text of a config with its [first stage](resolve_first_stage) or its
/// [pixel diffusion](resolve_pixel_diffusion) written out; none where there is nothing to write out.
pub(crate) fn write_out(text: &str, file: &Path, overrides: &[String]) -> Result<Option<String>> {
    // Parsing the text into its type reports invalid YAML, with the line.
    let Ok(mut tree) = config::merge(text, file, overrides) else { return Ok(None) };
    let changed = resolve_first_stage(&mut tree, file)? | resolve_pixel_diffusion(&mut tree, file)?;
    Ok(changed.then(|| config::to_text(&tree)))
}

/// Replaces a first stage that is named by its run, `first_stage_config: { target: run, params: { path: runs/first }
/// }`, by the network of that run's config, with the run as `ckpt_path`. Returns true when there was one.
///
/// `path` is a run directory, a model folder or a checkpoint file with its config next to it; it is looked up next to
/// the config `file`, then in the current folder. The loss and other training keys of the first stage are left out.
///
/// # Errors
/// [`Error::Config`] when there is no such run, or it has no first stage.
pub fn resolve_first_stage(tree: &mut Value, file: &Path) -> Result<bool> {
    const KEY: &str = "model.params.first_stage_config";
    let section = ["model", "params", "first_stage_config"].iter().try_fold(tree, |at, key| at.get_mut(*key));
    let Some(section) =
        section.filter(|section| section.get("target").and_then(Value::as_str) == Some("run"))
    else {
        return Ok(false);
    };
    let refuse = |key: &str, why: String| Error::config(file, format!("{KEY}{key}: {why}"));
    if let Some(key) = section
        .as_mapping()
        .into_iter()
        .flat_map(|keys| keys.keys())
        .filter_map(Value::as_str)
        .find(|key| !["target", "params"].contains(key))
    {
        return Err(refuse("", format!("expected target and params, got `{key}`")));
    }
    let params = section.get("params").cloned().unwrap_or_default();
    let RunParams { path } =
        serde_yaml::from_value(params).map_err(|error| refuse(".params", error.to_string()))?;
    let neighbor = file.with_file_name(&path);
    let path = if neighbor.exists() { neighbor } else { path };
    if !path.exists() {
        let expected = "expected a run directory, a model folder or a checkpoint";
        let why =
            format!("{expected}, got no file at {}; try training the first stage first", path.display());
        return Err(refuse(".params.path", why));
    }
    let not_a_first_stage = |got: &str, path: &Path| {
        refuse(".params.path", format!("expected a first stage, got the {got} {}", path.display()))
    };
    let found =
        ModelSource::find(&path, None, true).map_err(|error| refuse(".params.path", error.to_string()))?;
    let config = match found.config {
        ModelConfig::Kl(config) => FirstStageConfig::Kl(KlConfig {
            colorize_nlabels: config.colorize_nlabels,
            image_key: config.image_key,
            ckpt_path: Some(path),
            ..KlConfig::new(config.embed_dim, config.ddconfig)
        }),
        ModelConfig::Vq(config) => FirstStageConfig::Vq(VqConfig {
            colorize_nlabels: config.colorize_nlabels,
            image_key: config.image_key,
            remap: config.remap,
            sane_index_shape: config.sane_index_shape,
            beta: config.beta,
            legacy: config.legacy,
            unknown_index: config.unknown_index,
            ckpt_path: Some(path),
            ..VqConfig::new(config.embed_dim, config.n_embed, config.ddconfig)
        }),
        ModelConfig::LatentDiffusion(_) => return Err(not_a_first_stage("diffusion model", &path)),
        ModelConfig::Classifier(_) => return Err(not_a_first_stage("classifier", &path)),
    };
    *section = without_nulls(serde_yaml::to_value(&config).expect("a valid YAML tree"));
    Ok(true)
}

/// Removes null and empty values, which mean the same as absent ones.
fn without_nulls(mut value: Value) -> Value {
    if let Some(params) = value.get_mut("params").and_then(Value::as_mapping_mut) {
        params.retain(|key, value| {
            let empty = value.as_sequence().is_some_and(Vec::is_empty);
            let unset = value.is_null() || empty && key.as_str() == Some("ignore_keys");
            !unset
        });
    }
    value
}

#[cfg(test)]
mod tests {
    use ldm_testing::tiny;
    use tempfile::TempDir;

    use super::*;
    use crate::ModelFile;

    /// A diffusion config that names `path` as its first stage, next to a run of each kind. The weights are never read.
    fn folder(path: &str) -> TempDir {
        let folder = tempfile::tempdir().unwrap();
        for (name, config) in [("first", tiny::FIRST_STAGE), ("diffusion", tiny::DIFFUSION)] {
            let model = folder.path().join(name).join("model");
            std::fs::create_dir_all(&model).unwrap();
            std::fs::write(model.join("config.yaml"), config).unwrap();
            std::fs::write(model.join("model.safetensors"), b"\x02\0\0\0\0\0\0\0{}").unwrap();
        }
        std::fs::write(folder.path().join("second.yaml"), by_run(path)).unwrap();
        folder
    }

    fn by_run(path: &str) -> String {
        let (before, rest) = tiny::DIFFUSION.split_once("      target: kl").unwrap();
        let (_, after) = rest.split_once("    cond_stage_config").unwrap();
        format!("{before}      target: run\n      params: {{ path: {path} }}\n    cond_stage_config{after}")
    }

    fn read(folder: &TempDir, overrides: &[&str]) -> Result<FirstStageConfig> {
        let overrides: Vec<String> = overrides.iter().map(|each| (*each).to_owned()).collect();
        match ModelFile::read(folder.path().join("second.yaml"), &overrides)?.model {
            ModelConfig::LatentDiffusion(config) => Ok(config.first_stage_config),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn the_first_stage_is_that_of_the_run() {
        let folder = folder("first");
        std::fs::write(folder.path().join("spelled-out.yaml"), tiny::DIFFUSION).unwrap();
        let ModelConfig::LatentDiffusion(expected) =
            ModelFile::read(folder.path().join("spelled-out.yaml"), &[]).unwrap().model
        else {
            panic!("a diffusion model")
        };
        assert_eq!(read(&folder, &[]).unwrap(), expected.first_stage_config);
        let key = "model.params.first_stage_config.params.path";
        for path in ["first/model", "first/model/model.safetensors"] {
            let FirstStageConfig::Kl(config) = read(&folder, &[&format!("{key}={path}")]).unwrap() else {
                panic!("a KL first stage")
            };
            assert_eq!(config.ckpt_path, Some(folder.path().join(path)));
        }
    }

    #[test]
    fn a_run_without_a_first_stage_is_refused() {
        let check = |path: &str, overrides: &[&str], expected: &str| {
            let folder = folder(path);
            let error = read(&folder, overrides).unwrap_err().to_string();
            let start =
                format!("{}: model.params.first_stage_config", folder.path().join("second.yaml").display());
            let error = error.strip_prefix(&start).unwrap_or_else(|| panic!("{error}"));
            assert!(error.starts_with(expected), "{error}");
        };
        check(
            "runs/none",
            &[],
            ".params.path: expected a run directory, a model folder or a checkpoint, got no file at runs/none; try",
        );
        check("diffusion", &[], ".params.path: expected a first stage, got the diffusion model ");
        check("src", &[], ".params.path: src: expected model_index.json, or model.safetensors");
        let ckpt_path = "model.params.first_stage_config.params.ckpt_path=first";
        check("first", &[ckpt_path], ".params: unknown field `ckpt_path`, expected `path`");
        check("[1]", &[], ".params: ");
        let base_learning_rate = "model.params.first_stage_config.base_learning_rate=1";
        check("first", &[base_learning_rate], ": expected target and params, got `base_learning_rate`");
    }

    #[test]
    fn errors_refer_to_the_text_written_out() {
        let folder = folder("first");
        let error = read(&folder, &["model.params.channel=4"]).unwrap_err().to_string();
        assert!(error.contains("second.yaml: with the first stage written out: "), "{error}");
        assert!(error.contains("unknown field `channel`"), "{error}");
    }
}
