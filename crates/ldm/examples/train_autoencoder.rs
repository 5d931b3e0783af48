//! Trains an autoencoder on a dataset of its own: `cargo run --example train_autoencoder [-- RUN]`.

use ldm::autoencoder::FirstStageConfig;
use ldm::core::config;
use ldm::prelude::*;
use ldm::train::AutoencoderObjective;

const FIRST_STAGE: &str = "
target: kl
params:
  embed_dim: 4
  ddconfig: {z_channels: 4, resolution: 16, in_channels: 3, out_ch: 3, ch: 32, ch_mult: [1, 1], num_res_blocks: 1,
             attn_resolutions: []}";

/// Gratings of 16 directions on 16x16 pixels.
struct Gratings;

impl Dataset for Gratings {
    fn len(&self) -> usize {
        16
    }

    fn get(&self, index: usize, _seed: u64) -> Result<Example> {
        let (sin, cos) = (index as f32 * std::f32::consts::PI / 16.).sin_cos();
        let wave = |pixel: usize| (cos * (pixel % 16) as f32 + sin * (pixel / 16 % 16) as f32).sin();
        Ok(Example::new((0..3 * 256).map(wave).collect(), [3, 16, 16]))
    }
}

fn main() -> Result<()> {
    let run = std::env::args().nth(1);
    let folder = tempfile::tempdir().expect("a temporary folder");
    let run = run.map_or_else(|| folder.path().join("run"), Into::into);
    let config: FirstStageConfig = config::parse(FIRST_STAGE, "first stage", &[])?;
    let objective = AutoencoderObjective::new(&config, Device::Cpu)?;
    let train = TrainConfig { steps: 30, learning_rate: Some(2e-3), ..TrainConfig::default() };
    let trainer = Trainer::builder(train).objective(objective).data(Gratings).validation(Gratings);
    trainer.batch_size(16).run_dir(&run).build()?.run_to_end()
}
