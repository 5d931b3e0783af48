//! Names and shapes of every parameter of every official first stage; `golden/generate.py` listed CompVis'.

use std::collections::BTreeMap;
use std::path::Path;

use ldm_autoencoder::{Autoencoder, FirstStage, FirstStageConfig};
use ldm_checkpoint::Shapes;
use ldm_core::device::test_device;
use serde_yaml::Value;
use tch::nn::VarStore;

use crate::{official_path, read_model};

/// `configs/models/autoencoder/NAME.yaml`: latent shape at 256 pixels, tensors of encoder and decoder, number of parameters.
const OFFICIAL: [(&str, [i64; 3], [usize; 2], i64); 9] = [
    ("kl-f4", [3, 64, 64], [88, 112], 55_312_063),
    ("kl-f8", [4, 32, 32], [106, 138], 83_653_863),
    ("kl-f16", [16, 16, 16], [144, 194], 69_610_963),
    ("kl-f32", [64, 8, 8], [182, 250], 103_880_131),
    ("vq-f4", [3, 64, 64], [88, 112], 55_322_782),
    ("vq-f4-noattn", [3, 64, 64], [78, 102], 53_219_486),
    ("vq-f8", [4, 32, 32], [126, 168], 67_717_295),
    ("vq-f8-n256", [4, 32, 32], [126, 168], 67_652_783),
    ("vq-f16", [8, 16, 16], [144, 194], 69_593_371),
];

/// CompVis' parameters by model.
fn manifest() -> BTreeMap<String, Shapes> {
    let text = include_str!("../golden/manifest.txt");
    let mut models = BTreeMap::new();
    for section in text.split("\n[").skip(1) {
        let (head, lines) = section.split_once('\n').unwrap();
        let (name, _) = head.split_once(']').unwrap();
        let shape = |line: &str| {
            let (key, sizes) = line.split_once(' ').unwrap();
            (key.to_owned(), sizes.split(',').map(|size| size.parse().unwrap()).collect())
        };
        let lines = lines.lines().filter(|line| !line.is_empty());
        models.insert(name.to_owned(), lines.map(shape).collect());
    }
    models
}

#[test]
fn official_models_have_the_reference_parameters() {
    let mut manifest = manifest();
    for (name, latent, [encoder, decoder], count) in OFFICIAL {
        let vs = VarStore::new(test_device());
        let model = Autoencoder::new(&vs.root(), &read_model(&official_path(name))).unwrap();
        let got: Shapes = vs.variables().into_iter().map(|(key, tensor)| (key, tensor.size())).collect();
        let want = manifest.remove(name).expect("the manifest has every official model");
        for key in want.keys() {
            assert_eq!(got.get(key), want.get(key), "{name}: {key}");
        }
        let extra: Vec<_> = got.keys().filter(|key| !want.contains_key(*key)).collect();
        assert!(extra.is_empty(), "{name} has parameters CompVis lacks: {extra:?}");

        let tensors = |prefix: &str| got.keys().filter(|key| key.starts_with(prefix)).count();
        assert_eq!([tensors("encoder."), tensors("decoder.")], [encoder, decoder], "{name}: tensors");
        let values: i64 = got.values().map(|shape| shape.iter().product::<i64>()).sum();
        assert_eq!(values, count, "{name}: values");
        assert_eq!(model.latent_size([256, 256]), latent, "{name}: latent");
        assert_eq!(model.last_layer().size(), got["decoder.conv_out.weight"], "{name}: last layer");
    }
    assert!(manifest.is_empty(), "models without a config here: {:?}", manifest.keys());
}

#[test]
fn every_config_of_the_folder_loads() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../configs/models/autoencoder");
    let mut count = 0;
    for entry in std::fs::read_dir(&folder).unwrap() {
        read_model(&entry.unwrap().path()).validate().unwrap();
        count += 1;
    }
    assert!(count >= OFFICIAL.len(), "{count} files");
}

/// CompVis' own files load unchanged and equal ours; runs if `LDM_REF` names the checkouts.
#[test]
fn reference_files_load() {
    let Ok(checkouts) = std::env::var("LDM_REF") else { return };
    for (name, ..) in OFFICIAL {
        let path = format!("{checkouts}/latent-diffusion/models/first_stage_models/{name}/config.yaml");
        let (theirs, ours) = (read_model(Path::new(&path)), read_model(&official_path(name)));
        match (theirs, ours) {
            (FirstStageConfig::Kl(theirs), FirstStageConfig::Kl(ours)) => {
                assert_eq!((theirs.embed_dim, theirs.ddconfig), (ours.embed_dim, ours.ddconfig), "{name}");
            }
            (FirstStageConfig::Vq(theirs), FirstStageConfig::Vq(ours)) => {
                let theirs = (theirs.embed_dim, theirs.n_embed, theirs.ddconfig);
                assert_eq!(theirs, (ours.embed_dim, ours.n_embed, ours.ddconfig), "{name}");
            }
            _ => panic!("{name}: different kinds"),
        }
    }
    // First stages in the files of diffusion models.
    let mut found = 0;
    for folder in ["latent-diffusion/models/ldm", "latent-diffusion/configs"] {
        found += nested(Path::new(&checkouts).join(folder).as_path());
    }
    assert!(found >= 15, "first stages found: {found}");
}

fn nested(folder: &Path) -> usize {
    let mut found = 0;
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            found += nested(&path);
        } else if path.extension().is_some_and(|extension| extension == "yaml") {
            let text = std::fs::read_to_string(&path).unwrap();
            let file: Value = serde_yaml::from_str(&text).unwrap();
            let stage = &file["model"]["params"]["first_stage_config"];
            if !stage.is_null() {
                let config: FirstStageConfig = serde_yaml::from_value(stage.clone())
                    .unwrap_or_else(|error| panic!("{}: {error}", path.display()));
                config.validate().unwrap();
                found += 1;
            }
        }
    }
    found
}
