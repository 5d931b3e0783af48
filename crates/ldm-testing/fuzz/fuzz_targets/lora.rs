#![no_main]

use ldm_checkpoint::Shapes;
use ldm_fuzz::{Folder, bounded};
use ldm_pipelines::lora::Lora;
use ldm_pipelines::{LatentDiffusionConfig, ModelConfig, ModelFile};
use ldm_testing::tiny::DIFFUSION;

struct Target {
    folder: Folder,
    config: LatentDiffusionConfig,
    shapes: Shapes,
}

thread_local! {
    static TARGET: Target = {
        let ModelConfig::LatentDiffusion(config) = ModelFile::parse(DIFFUSION, "f.yaml", &[]).unwrap().model else {
            unreachable!("a diffusion model")
        };
        let model = ldm_pipelines::Model::from_config(
            &ModelConfig::LatentDiffusion(config.clone()), tch::Device::Cpu, tch::Kind::Float,
        ).unwrap();
        let shapes = model.vs().variables().into_iter().map(|(name, tensor)| (name, tensor.size())).collect();
        Target { folder: Folder::new(), config: *config, shapes }
    };
}

// A file of safetensors with the names of an adapter.
libfuzzer_sys::fuzz_target!(|bytes: &[u8]| TARGET.with(|Target { folder, config, shapes }| {
    let path = folder.write("lora.safetensors", bytes);
    if let Some(lora) = bounded(bytes.len(), || Lora::read(&path, config, shapes)) {
        for (name, update) in &lora.updates {
            assert!(update.fits(&shapes[name]), "{name}");
        }
    }
}));
