//! Every published config file parses unchanged, and our configs describe the same networks.
//!
//! `LDM_REF` names a folder with checkouts of `latent-diffusion` and `stable-diffusion`; skipped where it is not set.

#![allow(
    clippy::unwrap_used,
    clippy::print_stderr,
    reason = "clippy exempts tests, not their helper functions; skips are printed"
)]

use std::path::{Path, PathBuf};

use ldm_autoencoder::FirstStageConfig;
use ldm_conditioning::ConditionerConfig;
use ldm_core::device::test_device;
use ldm_pipelines::{
    ConcatKey, ConditioningKey, ConditioningKind, LatentDiffusion, LatentDiffusionConfig, ModelConfig,
    ModelFile,
};
use ldm_unet::Plan;

/// The model of a file: a diffusion model's kind and its U-Net's parameters in millions, or a first stage.
#[derive(Debug, PartialEq)]
enum Found {
    Diffusion(ConditioningKind, i64),
    FirstStage(&'static str),
}
use Found::{Diffusion, FirstStage};

/// All files of both repositories, which differ in one.
const FILES: [(&str, Found); 33] = [
    ("configs/autoencoder/autoencoder_kl_16x16x16.yaml", FirstStage("kl")),
    ("configs/autoencoder/autoencoder_kl_32x32x4.yaml", FirstStage("kl")),
    ("configs/autoencoder/autoencoder_kl_64x64x3.yaml", FirstStage("kl")),
    ("configs/autoencoder/autoencoder_kl_8x8x64.yaml", FirstStage("kl")),
    ("configs/latent-diffusion/celebahq-ldm-vq-4.yaml", Diffusion(ConditioningKind::Unconditional, 274)),
    ("configs/latent-diffusion/cin-ldm-vq-f8.yaml", Diffusion(ConditioningKind::Class, 395)),
    ("configs/latent-diffusion/cin256-v2.yaml", Diffusion(ConditioningKind::Class, 401)),
    ("configs/latent-diffusion/ffhq-ldm-vq-4.yaml", Diffusion(ConditioningKind::Unconditional, 274)),
    ("configs/latent-diffusion/lsun_bedrooms-ldm-vq-4.yaml", Diffusion(ConditioningKind::Unconditional, 274)),
    ("configs/latent-diffusion/lsun_churches-ldm-kl-8.yaml", Diffusion(ConditioningKind::Unconditional, 295)),
    ("configs/latent-diffusion/txt2img-1p4B-eval.yaml", Diffusion(ConditioningKind::Text, 872)),
    ("configs/retrieval-augmented-diffusion/768x768.yaml", Diffusion(ConditioningKind::Embedding, 1335)),
    ("configs/stable-diffusion/v1-inference.yaml", Diffusion(ConditioningKind::Text, 860)),
    ("models/first_stage_models/kl-f16/config.yaml", FirstStage("kl")),
    ("models/first_stage_models/kl-f32/config.yaml", FirstStage("kl")),
    ("models/first_stage_models/kl-f4/config.yaml", FirstStage("kl")),
    ("models/first_stage_models/kl-f8/config.yaml", FirstStage("kl")),
    ("models/first_stage_models/vq-f16/config.yaml", FirstStage("vq")),
    ("models/first_stage_models/vq-f4-noattn/config.yaml", FirstStage("vq")),
    ("models/first_stage_models/vq-f4/config.yaml", FirstStage("vq")),
    ("models/first_stage_models/vq-f8-n256/config.yaml", FirstStage("vq")),
    ("models/first_stage_models/vq-f8/config.yaml", FirstStage("vq")),
    ("models/ldm/bsr_sr/config.yaml", Diffusion(ConditioningKind::LowResolution, 114)),
    ("models/ldm/celeba256/config.yaml", Diffusion(ConditioningKind::Unconditional, 274)),
    ("models/ldm/cin256/config.yaml", Diffusion(ConditioningKind::Class, 395)),
    ("models/ldm/ffhq256/config.yaml", Diffusion(ConditioningKind::Unconditional, 274)),
    ("models/ldm/inpainting_big/config.yaml", Diffusion(ConditioningKind::Inpainting, 387)),
    ("models/ldm/layout2img-openimages256/config.yaml", Diffusion(ConditioningKind::Layout, 246)),
    ("models/ldm/lsun_beds256/config.yaml", Diffusion(ConditioningKind::Unconditional, 274)),
    ("models/ldm/lsun_churches256/config.yaml", Diffusion(ConditioningKind::Unconditional, 295)),
    ("models/ldm/semantic_synthesis256/config.yaml", Diffusion(ConditioningKind::SemanticMap, 215)),
    ("models/ldm/semantic_synthesis512/config.yaml", Diffusion(ConditioningKind::SemanticMap, 215)),
    ("models/ldm/text2img256/config.yaml", Diffusion(ConditioningKind::Text, 404)),
];

/// Our files, and the published file of the same network.
const OURS: [(&str, &str); 15] = [
    ("latent-diffusion/celebahq.yaml", "latent-diffusion/models/ldm/celeba256/config.yaml"),
    ("latent-diffusion/ffhq.yaml", "latent-diffusion/models/ldm/ffhq256/config.yaml"),
    ("latent-diffusion/imagenet-f8.yaml", "latent-diffusion/models/ldm/cin256/config.yaml"),
    ("latent-diffusion/imagenet.yaml", "latent-diffusion/configs/latent-diffusion/cin256-v2.yaml"),
    ("latent-diffusion/inpainting.yaml", "latent-diffusion/models/ldm/inpainting_big/config.yaml"),
    ("latent-diffusion/layout2img.yaml", "latent-diffusion/models/ldm/layout2img-openimages256/config.yaml"),
    ("latent-diffusion/lsun-bedrooms.yaml", "latent-diffusion/models/ldm/lsun_beds256/config.yaml"),
    ("latent-diffusion/lsun-churches.yaml", "latent-diffusion/models/ldm/lsun_churches256/config.yaml"),
    (
        "latent-diffusion/retrieval-768.yaml",
        "latent-diffusion/configs/retrieval-augmented-diffusion/768x768.yaml",
    ),
    ("latent-diffusion/semantic-256.yaml", "latent-diffusion/models/ldm/semantic_synthesis256/config.yaml"),
    ("latent-diffusion/semantic-512.yaml", "latent-diffusion/models/ldm/semantic_synthesis512/config.yaml"),
    ("latent-diffusion/super-resolution.yaml", "latent-diffusion/models/ldm/bsr_sr/config.yaml"),
    ("latent-diffusion/text2img-256.yaml", "latent-diffusion/models/ldm/text2img256/config.yaml"),
    ("latent-diffusion/text2img.yaml", "latent-diffusion/configs/latent-diffusion/txt2img-1p4B-eval.yaml"),
    ("stable-diffusion/v1.yaml", "stable-diffusion/configs/stable-diffusion/v1-inference.yaml"),
];

fn reference() -> Option<PathBuf> {
    let folder = std::env::var_os("LDM_REF").map(PathBuf::from);
    if folder.is_none() {
        eprintln!("skipped: LDM_REF does not name a folder with CompVis' checkouts");
    }
    folder
}

fn read(path: &Path) -> ModelFile {
    ModelFile::read(path, &[]).unwrap_or_else(|error| panic!("{error}"))
}

#[track_caller]
fn diffusion(file: ModelFile) -> LatentDiffusionConfig {
    match file.model {
        ModelConfig::LatentDiffusion(config) => *config,
        other => panic!("{other:?}"),
    }
}

fn ours(name: &str) -> LatentDiffusionConfig {
    diffusion(read(&Path::new(env!("CARGO_MANIFEST_DIR")).join("../../configs/models").join(name)))
}

fn found(file: &ModelFile) -> Found {
    match &file.model {
        ModelConfig::Kl(_) => FirstStage("kl"),
        ModelConfig::Vq(_) => FirstStage("vq"),
        ModelConfig::Classifier(_) => panic!("none was published"),
        ModelConfig::LatentDiffusion(config) => {
            config.check().unwrap();
            let shapes = Plan::new(config.unet()).unwrap().parameters();
            let count: i64 = shapes.iter().map(|(_, shape)| shape.iter().product::<i64>()).sum();
            Diffusion(ConditioningKind::of(config), (count + 500_000) / 1_000_000)
        }
    }
}

/// The YAML files under `part` of `folder`, by their paths from `folder`.
fn files(folder: &Path, part: &str) -> Vec<String> {
    let (mut names, mut folders) = (Vec::new(), vec![folder.join(part)]);
    while let Some(each) = folders.pop() {
        for entry in std::fs::read_dir(each).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|extension| extension == "yaml") {
                names.push(path.strip_prefix(folder).unwrap().to_str().unwrap().to_owned());
            }
        }
    }
    names
}

#[test]
fn every_published_file_is_read_unchanged() {
    let Some(reference) = reference() else { return };
    for (repository, count) in [("latent-diffusion", FILES.len() - 1), ("stable-diffusion", FILES.len())] {
        let names = ["configs", "models"].map(|part| files(&reference.join(repository), part)).concat();
        assert_eq!(names.len(), count, "files of {repository}");
        for name in names {
            let path = reference.join(repository).join(&name);
            let file = read(&path);
            let known = FILES.iter().find(|(each, _)| *each == name);
            let (_, expected) = known.unwrap_or_else(|| panic!("{repository}/{name} is not in the list"));
            assert_eq!(found(&file), *expected, "{repository}/{name}");
            let text = std::fs::read_to_string(&path).unwrap();
            let sections = text.contains("\ndata:") || text.contains("\nlightning:");
            assert_eq!(file.notes.len(), usize::from(sections), "{repository}/{name}: {:?}", file.notes);
        }
    }
}

/// `configs/stable-diffusion/v1-inpainting-inference.yaml` of the repository runwayml/stable-diffusion: its keys.
const INPAINTING: &str = "
model:
  base_learning_rate: 7.5e-05
  target: ldm.models.diffusion.ddpm.LatentInpaintDiffusion
  params:
    {linear_start: 0.00085, linear_end: 0.0120, num_timesteps_cond: 1, log_every_t: 200, timesteps: 1000,
     first_stage_key: jpg, cond_stage_key: txt, image_size: 64, channels: 4, cond_stage_trainable: false,
     conditioning_key: hybrid, monitor: val/loss_simple_ema, scale_factor: 0.18215, finetune_keys: null,
     scheduler_config: {target: ldm.lr_scheduler.LambdaLinearScheduler, params: {warm_up_steps: [2500],
       cycle_lengths: [10000000000000], f_start: [1.e-6], f_max: [1.], f_min: [1.]}},
     unet_config: {target: ldm.modules.diffusionmodules.openaimodel.UNetModel, params: {image_size: 32,
       in_channels: 9, out_channels: 4, model_channels: 320, attention_resolutions: [4, 2, 1], num_res_blocks: 2,
       channel_mult: [1, 2, 4, 4], num_heads: 8, use_spatial_transformer: True, transformer_depth: 1,
       context_dim: 768, use_checkpoint: True, legacy: False}},
     first_stage_config: {target: ldm.models.autoencoder.AutoencoderKL, params: {embed_dim: 4,
       monitor: val/rec_loss, ddconfig: {double_z: true, z_channels: 4, resolution: 256, in_channels: 3, out_ch: 3,
       ch: 128, ch_mult: [1, 2, 4, 4], num_res_blocks: 2, attn_resolutions: [], dropout: 0.0},
       lossconfig: {target: torch.nn.Identity}}},
     cond_stage_config: {target: ldm.modules.encoders.modules.FrozenCLIPEmbedder, params: {device: cpu}}}
";

#[test]
fn stable_diffusions_inpainting_is_read_unchanged() {
    let file = ModelFile::parse(INPAINTING, "v1-inpainting-inference.yaml", &[]).unwrap();
    assert_eq!(found(&file), Diffusion(ConditioningKind::TextInpainting, 860));
    let config = diffusion(file);
    assert_eq!(config.conditioning_key(), Some(ConditioningKey::Hybrid));
    assert_eq!(config.concat_keys(), [ConcatKey::Mask, ConcatKey::MaskedImage]);
    same_network(
        "stable-diffusion/v1-inpainting.yaml",
        &ours("stable-diffusion/v1-inpainting.yaml"),
        &config,
    );
}

#[test]
fn our_files_describe_the_published_networks() {
    let Some(reference) = reference() else { return };
    for (name, theirs) in OURS {
        same_network(name, &ours(name), &diffusion(read(&reference.join(theirs))));
    }
}

/// Asserts equality of everything that a forward, a checkpoint or a sample depends on.
#[track_caller]
fn same_network(name: &str, ours: &LatentDiffusionConfig, theirs: &LatentDiffusionConfig) {
    let [mut unet, mut their_unet] = [ours, theirs].map(|config| config.unet().clone());
    for unet in [&mut unet, &mut their_unet] {
        // Unused: the size always, `legacy` with transformers.
        (unet.image_size, unet.legacy) = (None, true);
    }
    assert_eq!(unet, their_unet, "{name}");
    let [first, their_first] = [ours, theirs].map(|config| bare(config.first_stage_config.clone()));
    assert_eq!(first, their_first, "{name}");
    let [conditioner, their_conditioner] = [ours, theirs].map(|config| anywhere(&config.cond_stage_config));
    assert_eq!(conditioner, their_conditioner, "{name}");
    assert_eq!(ours.schedule(), theirs.schedule(), "{name}");
    let rest = |config: &LatentDiffusionConfig| {
        (
            (config.parameterization, config.loss_type, config.image_size, config.channels),
            (config.scale_factor, config.scale_by_std, config.cond_stage_trainable),
            (config.conditioning_key(), config.concat_keys().to_vec()),
        )
    };
    assert_eq!(rest(ours), rest(theirs), "{name}");
}

/// The config without keys of training.
fn bare(mut config: FirstStageConfig) -> FirstStageConfig {
    match &mut config {
        FirstStageConfig::Kl(kl) => (kl.lossconfig, kl.monitor, kl.ckpt_path) = (None, None, None),
        FirstStageConfig::Vq(vq) => (vq.lossconfig, vq.monitor, vq.ckpt_path) = (None, None, None),
        FirstStageConfig::Identity(_) => {}
    }
    config
}

/// The config without device and key of the batch.
fn anywhere(config: &ConditionerConfig) -> ConditionerConfig {
    let mut config = config.clone();
    match &mut config {
        ConditionerConfig::Bert(bert) => bert.device = None,
        ConditionerConfig::ClipText(clip) => clip.device = None,
        ConditionerConfig::Class(class) => class.key = "class".into(),
        _ => {}
    }
    config
}

/// Tiny configs of every kind of conditioning are valid.
#[test]
fn tiny_configs_build() {
    for (name, kind) in [
        ("diffusion-class", ConditioningKind::Class),
        ("diffusion-text-bert", ConditioningKind::Text),
        ("diffusion-text-clip", ConditioningKind::Text),
        ("inpainting", ConditioningKind::Inpainting),
        ("layout", ConditioningKind::Layout),
        ("semantic", ConditioningKind::SemanticMap),
        ("super-resolution", ConditioningKind::LowResolution),
    ] {
        let config = ours(&format!("../experiments/tiny/{name}.yaml"));
        assert_eq!(ConditioningKind::of(&config), kind, "{name}");
        LatentDiffusion::new(&config, None, test_device()).unwrap_or_else(|error| panic!("{name}: {error}"));
    }
}

/// Paths are relative to the config file, or else to the current folder.
#[test]
fn paths_are_looked_up_next_to_the_file() {
    let folder = tempfile::tempdir().unwrap();
    let there = folder.path().join("first.ckpt");
    std::fs::write(&there, "").unwrap();
    let tiny = include_str!("../tiny.yaml");
    let file = folder.path().join("config.yaml");
    let set = [
        "model.params.first_stage_config.params.ckpt_path=first.ckpt".to_owned(),
        "model.params.ckpt_path=no.ckpt".into(),
    ];
    let config = diffusion(ModelFile::parse(tiny, &file, &set).unwrap());
    let FirstStageConfig::Vq(vq) = config.first_stage_config else { panic!("a VQ first stage") };
    assert_eq!(vq.ckpt_path, Some(there));
    assert_eq!(config.ckpt_path, Some("no.ckpt".into()));
}

#[test]
fn ignored_sections_are_named_in_one_note() {
    let tiny = include_str!("../tiny.yaml");
    let notes = |more: &str| ModelFile::parse(&format!("{tiny}\n{more}"), "x.yaml", &[]).unwrap().notes;
    assert_eq!(notes(""), [""; 0]);
    assert_eq!(notes("data: {a: 1}\ntrain: {}\n"), [""; 0]);
    let got = notes("data: {a: 1}\nlightning: {b: 2}\n");
    assert_eq!(got, ["x.yaml: ignored `data` and `lightning`, which only CompVis' trainer reads"]);
}
