//! Timing of a training step on a batch in memory.

use ldm_core::noise::PerStep;
use ldm_core::{Prompt, Result};
use ldm_data::Batch;
use ldm_train::{
    AdamW, AdamWConfig, AutoencoderObjective, DiffusionObjective, DiffusionTraining, Ema, EmaConfig,
    Objective, Phase, StepInfo, found_inf,
};
use tch::Device;

use crate::inputs;
use crate::measure::{StageInfo, StageRun};
use crate::subject::BenchSubject;
use crate::{BenchConfig, BenchEvent};

/// The step's number: after the start of any discriminator.
const STEP: u64 = 1 << 40;

/// Times a step with fresh weights: forward, backward, AdamW and EMA, in f32 except where autocast takes
/// another dtype. Of a diffusion model the first stage encodes the images, as in a run without cached latents.
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
    let phases: Vec<(Phase, AdamW)> = (objective.phases().into_iter())
        .map(|phase| {
            let same = phase.trainable.iter().map(|(name, tensor)| (name.clone(), tensor.shallow_clone()));
            let optimizer = AdamW::new(same.collect(), AdamWConfig::default());
            (phase, optimizer)
        })
        .collect();
    let ema = Ema::new(objective.ema_parameters(), &EmaConfig::default());
    objective.prepare(&batch, &mut PerStep::new(0, 0, u64::MAX))?;
    let trained =
        phases.iter().flat_map(|(phase, _)| &phase.trainable).map(|(_, tensor)| tensor.numel()).sum();
    let what = StageInfo {
        stage: "train",
        shape: batch.images.size(),
        steps: Some(1),
        parameters: trained,
        weight_bytes: trained * 4,
    };
    observe(BenchEvent::Stage { stage: what.stage, shape: &what.shape });
    let mut training = Training { objective, phases, ema, batch, subject, step: STEP };
    StageRun::measure(what, repeats, subject.device, &mut || training.step())
}

struct Training<'a> {
    objective: Box<dyn Objective>,
    phases: Vec<(Phase, AdamW)>,
    ema: Ema,
    batch: Batch,
    subject: &'a BenchSubject,
    step: u64,
}

impl Training<'_> {
    /// As `ldm_train::Trainer` on one rank without accumulation.
    fn step(&mut self) -> Result<()> {
        for phase in 0..self.phases.len() {
            for (index, (other, optimizer)) in self.phases.iter_mut().enumerate() {
                for (_, tensor) in &other.trainable {
                    let _ = tensor.set_requires_grad(index == phase);
                }
                if index == phase {
                    optimizer.zero_grad();
                }
            }
            let mut noise = PerStep::new(0, 0, self.step);
            let loss = {
                let _autocast = ldm_libtorch::autocast(self.subject.device, self.subject.kind);
                self.objective.loss(StepInfo { phase, step: self.step }, &self.batch, &mut noise)?
            };
            loss.total.backward();
            self.objective.after_backward(phase);
            let (phase, optimizer) = &mut self.phases[phase];
            let overflow = found_inf(&optimizer.clip(None));
            optimizer.step(1e-6 * phase.rate, Some(&overflow));
        }
        self.objective.after_step(&mut PerStep::new(0, 1, self.step));
        self.ema.update();
        self.step += 1;
        Ok(())
    }
}
