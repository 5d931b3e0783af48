//! Bytes of images alone and in batches.

use ldm::pipelines::{LatentDiffusion, ModelConfig, ModelFile};
use ldm::prelude::*;
use ldm_testing::fill_weights;

const CONFIGS: [(&str, &str); 2] = [
    ("tiny", include_str!("../../../ldm-pipelines/tests/tiny.yaml")),
    ("class", include_str!("../../../../configs/experiments/tiny/diffusion-class.yaml")),
];

/// Overrides that make a model of maps of 8 x 8 down to 2 x 2, with heads that no vector length divides.
const SMALL: [&str; 4] = [
    "model.params.first_stage_config.params.ckpt_path=null",
    "model.params.unet_config.params.model_channels=96",
    "model.params.unet_config.params.num_head_channels=24",
    "model.params.unet_config.params.channel_mult=[1, 2, 2]",
];

fn pipeline(text: &str, overrides: &[&str]) -> Pipeline {
    let overrides: Vec<String> = overrides.iter().map(ToString::to_string).collect();
    let ModelConfig::LatentDiffusion(config) =
        ModelFile::parse(text, "config.yaml", &overrides).unwrap().model
    else {
        panic!("a diffusion model")
    };
    let model = LatentDiffusion::new(&config, None, Device::Cpu).unwrap();
    fill_weights(model.vs(), 3);
    Pipeline::new(model, "model")
}

/// On the CPU in f32 with our kernels, which need AVX2.
#[test]
fn an_image_has_the_same_bytes_alone_and_in_a_batch() {
    if !std::arch::is_x86_feature_detected!("avx2") {
        println!("skipped: the kernels need AVX2");
        return;
    }
    for (name, text) in CONFIGS {
        let overrides: &[&str] = if name == "class" { &SMALL } else { &SMALL[..1] };
        let pipeline = pipeline(text, overrides);
        for sampler in [SamplerConfig::Ddim { eta: 1. }, SamplerConfig::Dpmpp2m { lower_order_final: false }]
        {
            let request = |seeds: std::ops::Range<u64>| {
                let request = Request::class(3).seeds(seeds).steps(3).sampler(sampler);
                pipeline.generate(&request.guidance(if name == "class" { 2. } else { 1. })).unwrap()
            };
            let alone: Vec<_> = (0..6).map(|seed| request(seed..seed + 1)).collect();
            for count in [2, 3, 5] {
                let batch = request(0..count);
                for (index, alone) in alone.iter().take(count as usize).enumerate() {
                    let [one, same] = [alone.tensor().get(0), batch.tensor().get(index as i64)];
                    assert!(one.equal(&same), "{name}, {}: image {index} of {count}", sampler.name());
                }
            }
        }
    }
}
