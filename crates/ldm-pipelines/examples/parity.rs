//! Samples with conditions that no command takes, for `docs/tools/parity/compvis.py`.
//!
//!     parity CONFIG WEIGHTS GIVEN OUT STEPS SCALE
//!
//! DDIM with η = 0 on the CPU in f32. GIVEN is a safetensors file of the initial `noise`, of the prompt (`class`, `image`,
//! `mask`, `tokens`, `embedding`) and of `negative_tokens`. OUT is a safetensors file of `latents`.

use std::collections::BTreeMap;
use std::path::Path;

use ldm_checkpoint::Checkpoint;
use ldm_core::{Error, Prompt, Result};
use ldm_pipelines::{GenerateRequest, LoadOptions, Model, Sampling, generate};
use ldm_schedulers::SamplerConfig;
use tch::{Device, Tensor};

fn main() -> Result<()> {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let [config, weights, given, out, steps, scale] = args.as_slice() else {
        return Err(Error::invalid("usage: parity CONFIG WEIGHTS GIVEN OUT STEPS SCALE"));
    };
    let options = LoadOptions { config: Some(config.into()), ..LoadOptions::new(Device::Cpu) };
    let Model::Diffusion(model) = Model::open(Path::new(weights), &options, &mut |_| {})? else {
        return Err(Error::invalid(format!("{config}: expected a diffusion model, got a first stage alone")));
    };
    let given = Checkpoint::open(given)?;
    let own = |name: &str| given.contains(name).then(|| given.tensor(name)).transpose();
    let prompt = Prompt {
        class: own("class")?,
        image: own("image")?,
        mask: own("mask")?,
        tokens: own("tokens")?,
        embedding: own("embedding")?,
        ..Prompt::default()
    };
    let negative: Option<Tensor> = own("negative_tokens")?;
    let negative = negative.map(|tokens| Prompt { tokens: Some(tokens), ..Prompt::default() });
    let noise = given.tensor("noise")?;
    let size = noise.size();
    let factor = model.first_stage.factor();
    let sampler = SamplerConfig::Ddim { eta: 0. };
    let sampling = Sampling {
        guidance: scale
            .parse::<f64>()
            .map_err(|_| Error::invalid(format!("SCALE: expected a number, got {scale}")))?
            .into(),
        size: Some([size[2] * factor, size[3] * factor]),
        ..Sampling::new(
            sampler,
            steps.parse().map_err(|_| Error::invalid(format!("STEPS: expected a number, got {steps}")))?,
        )
    };
    let seeds: Vec<u64> = (0..size[0] as u64).collect();
    let made = generate(
        &model,
        &GenerateRequest::new(&prompt, &seeds, &sampling).negative(negative.as_ref()).init(Some(&noise)),
        &mut |_| {},
    )?;
    ldm_checkpoint::save(out, &[("latents".into(), made.latents)], &BTreeMap::new())
}
