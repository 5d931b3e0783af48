//! The configs of the repository: their datasets open, their first stages fit, and a first stage named by its run is
//! equivalent to its config.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::AtomicBool;

use ldm_checkpoint::Checkpoint;
use ldm_core::device::test_device;
use ldm_core::nn::skip_init;
use ldm_data::DATA_FOLDER;
use ldm_pipelines::{LatentDiffusion, ModelConfig};
use ldm_testing::{shared_data, tiny};
use ldm_train::{DataModule, RunConfig, Trainer};

/// The runs that configs name as first stages, and the configs of these runs.
const FIRST_STAGES: [(&str, &str); 4] = [
    ("cifar-first-stage", "cifar/first-stage-kl-f2.yaml"),
    ("emoji-first-stage", "emoji/first-stage.yaml"),
    ("photos-first-stage-64", "photos/first-stage-64.yaml"),
    ("scenes-first-stage", "scenes/first-stage.yaml"),
];

fn experiments() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../configs/experiments")
}

/// A folder with the runs of [`FIRST_STAGES`], without weights.
fn runs() -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    for (run, config) in FIRST_STAGES {
        let model = folder.path().join("runs").join(run).join("model");
        std::fs::create_dir_all(&model).unwrap();
        let config = RunConfig::read(experiments().join(config), &[]).unwrap();
        std::fs::write(model.join("config.yaml"), config.model_text()).unwrap();
        std::fs::write(model.join("model.safetensors"), b"\x02\0\0\0\0\0\0\0{}").unwrap();
    }
    folder
}

/// Every config of an experiment, by its path.
fn all() -> Vec<(PathBuf, String)> {
    let mut paths = Vec::new();
    for folder in std::fs::read_dir(experiments()).unwrap() {
        for file in std::fs::read_dir(folder.unwrap().path()).unwrap() {
            let path = file.unwrap().path();
            let text = std::fs::read_to_string(&path).unwrap();
            paths.push((path, text));
        }
    }
    paths.sort();
    paths
}

#[test]
fn second_stages_fit_the_first_stages_they_name() {
    let (folder, mut count) = (runs(), 0);
    for (path, text) in all().into_iter().filter(|(_, text)| text.contains("target: run\n")) {
        let config = RunConfig::parse(&text, folder.path().join("config.yaml"), &[]);
        let config = config.unwrap_or_else(|error| panic!("{}: {error}", path.display()));
        assert!(
            !config.to_text().contains("target: run\n"),
            "{}: the first stage is not resolved",
            path.display()
        );
        let ModelConfig::LatentDiffusion(model) = &config.model else { panic!("{}", path.display()) };
        skip_init(|| LatentDiffusion::new(model, None, tch::Device::Cpu))
            .unwrap_or_else(|error| panic!("{}: {error}", path.display()));
        count += 1;
    }
    assert!(count >= 11, "{count} configs of second stages");
}

#[test]
fn datasets_open() {
    let Some(data) = shared_data() else {
        println!("skipped: no folder of shared data (LDM_DATA)");
        return;
    };
    if std::env::var_os(DATA_FOLDER).is_none() {
        // Runs again in a process with the variable, as a process cannot set its own safely.
        let mut again = Command::new(std::env::current_exe().unwrap());
        again.arg("datasets_open").env(DATA_FOLDER, data.canonicalize().unwrap());
        assert!(again.status().unwrap().success());
        return;
    }
    for (path, _) in all().into_iter().filter(|(_, text)| text.contains("\ndata:\n")) {
        let data = DataModule::read(&path).unwrap_or_else(|error| panic!("{error}"));
        for set in [Some(&data.train), data.validation.as_ref()].into_iter().flatten() {
            let set =
                set.open(Path::new("/none")).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
            assert!(set.len() > 10, "{}: {} images", path.display(), set.len());
        }
    }
}

fn train(text: &str, folder: &Path, run: &str) -> Vec<(String, tch::Tensor)> {
    let config = RunConfig::parse(text, folder.join("config.yaml"), &[]).unwrap();
    let root = folder.join(run);
    Trainer::create(config, &root, test_device()).unwrap().run(&AtomicBool::new(false), &mut |_| ()).unwrap();
    let checkpoint = Checkpoint::open(root.join("model/model.safetensors")).unwrap();
    checkpoint.names().map(|name| (name.to_owned(), checkpoint.tensor(name).unwrap())).collect()
}

#[test]
fn a_first_stage_named_by_its_run_is_equivalent_to_its_config() {
    let folder = tempfile::tempdir().unwrap();
    train(tiny::FIRST_STAGE, folder.path(), "first");
    let (before, rest) = tiny::DIFFUSION.split_once("      target: kl").unwrap();
    let (_, after) = rest.split_once("    cond_stage_config").unwrap();
    let by_run =
        format!("{before}      target: run\n      params: {{ path: first }}\n    cond_stage_config{after}");
    let by_config = train(tiny::DIFFUSION, folder.path(), "by-config");
    let named = train(&by_run, folder.path(), "named");
    assert_eq!(by_config.len(), named.len());
    for ((name, a), (_, b)) in by_config.iter().zip(&named) {
        assert!(a == b, "{name}");
    }
    // The run's config is complete: it can be read without the folder of the first stage.
    let path = folder.path().join("named/config.yaml");
    let text = std::fs::read_to_string(&path).unwrap();
    assert!(!text.contains("target: run\n") && text.contains("ddconfig"), "{text}");
    std::fs::remove_dir_all(folder.path().join("first")).unwrap();
    RunConfig::read(&path, &[]).unwrap();
    let model = ldm_pipelines::ModelFile::read(folder.path().join("named/model/config.yaml"), &[]).unwrap();
    assert!(matches!(model.model, ModelConfig::LatentDiffusion(_)));
}
