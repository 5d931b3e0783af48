//! Configs of classifiers.

use ldm_pipelines::{ClassifierConfig, LatentDiffusionConfig, ModelConfig, ModelFile};

use crate::classifier::{TINY, diffusion, save};

fn config(params: &str) -> ldm_core::Result<ClassifierConfig> {
    let target = "ldm.models.diffusion.classifier.NoisyLatentImageClassifier";
    let text = format!("model: {{target: {target}, params: {{{params}}}}}");
    match ModelFile::parse(&text, "classifier.yaml", &[])?.model {
        ModelConfig::Classifier(config) => Ok(*config),
        other => panic!("{other:?}"),
    }
}

fn refused(params: &str, expected: &str) {
    let error = config(params).and_then(|config| config.network()).unwrap_err().to_string();
    assert!(error.contains(expected), "{error}");
}

#[test]
fn the_network_is_the_encoder_of_the_diffusion_model_with_a_pool() {
    let folder = tempfile::tempdir().unwrap();
    let model = diffusion(&[
        "model.params.unet_config.params.num_head_channels=16",
        "model.params.unet_config.params.num_heads=-1",
    ]);
    save(&model, &folder.path().join("run/model"));
    let tiny = TINY.replace("num_heads: 2", "num_head_channels: 16");
    std::fs::write(folder.path().join("run/model/config.yaml"), &tiny).unwrap();
    let own: LatentDiffusionConfig = model.config.clone();
    let expected = |pool| {
        let like = ldm_unet::EncoderUNetConfig::for_classifier(own.unet(), 7, pool);
        ldm_unet::EncoderUNetConfig { image_size: Some([8, 8]), ..like }
    };

    let run = folder.path().join("run");
    let params = format!("num_classes: 7, diffusion_path: {}", run.display());
    assert_eq!(config(&params).unwrap().network().unwrap(), expected(ldm_unet::Pool::Attention));
    let pooled = format!("{params}, pool: spatial_v2, label_key: class_label, monitor: val/acc@1");
    assert_eq!(config(&pooled).unwrap().network().unwrap(), expected(ldm_unet::Pool::SpatialV2));

    // A folder of CompVis' trainer: the newest of its configs, and its last checkpoint or the one named.
    let logs = folder.path().join("logs");
    std::fs::create_dir_all(logs.join("configs")).unwrap();
    std::fs::create_dir_all(logs.join("checkpoints")).unwrap();
    std::fs::write(logs.join("configs/2021-05-01T00-00-00-project.yaml"), "not read").unwrap();
    std::fs::write(logs.join("configs/2021-06-01T00-00-00-project.yaml"), &tiny).unwrap();
    std::fs::write(logs.join("configs/2021-07-01T00-00-00-lightning.yaml"), "not read").unwrap();
    let weights = run.join("model/model.safetensors");
    std::fs::copy(&weights, logs.join("checkpoints/last.ckpt")).unwrap();
    let last = config(&format!("num_classes: 7, diffusion_path: {}", logs.display())).unwrap();
    assert_eq!(last.network().unwrap(), expected(ldm_unet::Pool::Attention));
    let moved = folder.path().join("moved.safetensors");
    std::fs::rename(weights, &moved).unwrap();
    for place in [&logs, &run] {
        let params = format!(
            "num_classes: 7, diffusion_path: {}, diffusion_ckpt_path: {}",
            place.display(),
            moved.display()
        );
        let (source, _) = config(&params).unwrap().diffusion().unwrap();
        assert_eq!(source.checkpoint.path(), moved);
    }
}

#[test]
fn invalid_configs_are_refused_by_key() {
    refused("num_classes: 7", "diffusion_path: expected the diffusion model");
    refused("num_classes: 7, diffusion_path: nowhere", "nowhere");
    refused("num_classes: 7, label_key: segmentation", "label_key: expected class_label, got segmentation");
    refused("num_classes: 7, label_key: caption", "label_key: expected class_label, got caption");
    refused("num_classes: 1", "num_classes: expected at least 2, got 1");
    refused("num_classes: 7, weight_decay: -1", "weight_decay: expected at least 0, got -1");
    refused("num_classes: 7, log_steps: 0", "log_steps: expected at least 1");
    refused("num_classes: 7, pools: spatial", "unknown field `pools`");
    refused("num_classes: 7, pool: mean", "unknown variant `mean`");
    let network =
        "classifier_config: {in_channels: 4, out_channels: 7, model_channels: 32, num_res_blocks: 1,
                   attention_resolutions: [2], pool: spatial}";
    assert!(config(&format!("num_classes: 7, {network}")).unwrap().network().is_ok());
    refused(
        &format!("num_classes: 8, {network}"),
        "classifier_config.out_channels: expected num_classes, 8, got 7",
    );
    refused(
        &format!("num_classes: 7, pool: adaptive, {network}"),
        "pool: expected that of classifier_config, got another",
    );

    let folder = tempfile::tempdir().unwrap();
    let maps = diffusion(&[]);
    save(&maps, folder.path());
    let text =
        TINY.replace("    scale_factor: 0.5\n", "    scale_factor: 0.5\n    cond_stage_key: segmentation\n");
    std::fs::write(folder.path().join("config.yaml"), text).unwrap();
    let params = format!("num_classes: 7, diffusion_path: {}", folder.path().display());
    refused(&params, "label_key: expected class_label for a diffusion model conditioned on semantic maps");
    assert!(config(&format!("{params}, label_key: class_label")).unwrap().network().is_ok());
}
