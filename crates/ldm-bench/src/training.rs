//! Timing of a training step on a batch in memory.

use ldm_core::noise::PerStep;
use ldm_core::{Prompt, Result};
use ldm_data::Batch;
use ldm_train::{
    AutoencoderObjective, DiffusionObjective, DiffusionTraining, Distributed, Dtype, EmaConfig, Objective,
    TrainStep, TrainStepConfig,
};
use tch::{Device, Kind};

use crate::inputs;
use crate::measure::{StageInfo, StageRun};
use crate::subject::BenchSubject;
use crate::{BenchConfig, BenchEvent};

/// Global step that is timed, after the start of any discriminator (`disc_start`).
const STEP: u64 = 1 << 40;

/// Times a step with fresh weights: forward, backward, AdamW and EMA, with autocast to the dtype
/// of the bench. The first stage of a diffusion model encodes the images, as without cached latents.
pub(crate) fn time(
    config: BenchConfig,
    subject: &BenchSubject,
    observe: &mut dyn FnMut(BenchEvent),
) -> Result<StageRun> {
    let BenchConfig { batch_size, repeats, .. } = config;
    ldm_libtorch::keep_freed_memory();
    let (mut objective, prompt) = if let Some(config) = subject.diffusion() {
        let (training, device) = (DiffusionTraining::default(), subject.device);
        let objective = DiffusionObjective::with_tokenizer(config, None, None, training, device)?;
        (Box::new(objective) as Box<dyn Objective>, inputs::prompt(subject, config, batch_size))
    } else {
        let config = subject.first_stage().expect("neither a diffusion model nor a classifier");
        (
            Box::new(AutoencoderObjective::new(&config, subject.device)?) as Box<dyn Objective>,
            Prompt::default(),
        )
    };
    objective.check_size(subject.size)?;
    objective.notes().iter().for_each(|note| observe(BenchEvent::Note(note)));
    let batch = Batch {
        images: inputs::images(subject, batch_size, Device::Cpu),
        latents: None,
        prompt,
        crops: vec![[0., 0., 1., 1.]; batch_size as usize],
        label_map: None,
        names: vec!["noise".into(); batch_size as usize],
    };
    objective.prepare(&batch, &mut PerStep::new(0, 0, u64::MAX))?;
    let config = TrainStepConfig {
        dtype: dtype(subject.kind),
        ema: Some(EmaConfig::default()),
        ..TrainStepConfig::default()
    };
    let mut step = TrainStep::new(objective, config, subject.device, Distributed::default())?;
    step.set_global_step(STEP);
    let what = StageInfo {
        stage: "train",
        shape: batch.images.size(),
        steps: Some(1),
        parameters: step.parameters(),
        weight_bytes: step.parameters() * 4,
    };
    observe(BenchEvent::Stage { stage: what.stage, shape: &what.shape });
    StageRun::measure(what, repeats, subject.device, &mut || {
        step.step(1e-6, &mut || Ok(same(&batch)))?;
        Ok(())
    })
}

/// Returns the same tensors, not copied.
fn same(batch: &Batch) -> Batch {
    Batch {
        images: batch.images.shallow_clone(),
        latents: None,
        prompt: batch.prompt.narrow(0, batch.images.size()[0]),
        crops: batch.crops.clone(),
        label_map: None,
        names: batch.names.clone(),
    }
}

/// Returns the dtype of autocast.
fn dtype(kind: Kind) -> Dtype {
    match kind {
        Kind::BFloat16 => Dtype::Bf16,
        Kind::Half => Dtype::F16,
        _ => Dtype::F32,
    }
}
