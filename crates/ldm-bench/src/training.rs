//! One step of training, as the trainer takes it, on a batch that is there already.

use ldm_core::Prompt;
use ldm_core::noise::PerStep;
use ldm_data::Batch;
use ldm_train::{
    AdamW, AdamWConfig, AutoencoderObjective, DiffusionObjective, DiffusionTraining, Ema, EmaConfig,
    Objective, Phase, StepInfo, found_inf,
};
use tch::Device;

use super::inputs;
use super::measure::{Row, What};
use super::stages::shape;
use super::subject::Subject;
use crate::args::BenchArgs;
use crate::progress::Printer;

/// Steps behind it: past any at which a loss brings in a discriminator.
const STEP: u64 = 1 << 40;

/// Times a step with fresh weights: forward, backward, AdamW and the running average, all of it in f32 but what autocast
/// takes to another dtype. Of a diffusion model the first stage encodes the images, as in a run that keeps no latents.
pub(super) fn time(args: &BenchArgs, subject: &Subject, printer: Printer) -> anyhow::Result<Row> {
    ldm_libtorch::keep_freed_memory();
    let (mut objective, prompt) = if let Some(config) = subject.diffusion() {
        let (training, device) = (DiffusionTraining::default(), subject.device);
        let objective = DiffusionObjective::with_tokenizer(config, None, None, training, device)?;
        (Box::new(objective) as Box<dyn Objective>, inputs::prompt(subject, config, args.batch_size))
    } else {
        let config = subject.first_stage().expect("neither a diffusion model nor a classifier");
        (
            Box::new(AutoencoderObjective::new(&config, subject.device)?) as Box<dyn Objective>,
            Prompt::default(),
        )
    };
    objective.check_size(subject.size)?;
    objective.notes().iter().for_each(|note| Printer::warn(note));
    let batch = Batch {
        images: inputs::images(subject, args.batch_size, Device::Cpu),
        latents: None,
        prompt,
        crops: vec![[0., 0., 1., 1.]; args.batch_size as usize],
        label_map: None,
        names: vec!["noise".into(); args.batch_size as usize],
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
    let what = What {
        stage: "train",
        shape: batch.images.size(),
        steps: Some(1),
        parameters: trained,
        weight_bytes: trained * 4,
    };
    printer.say(&format!("{} {}", what.stage, shape(&what.shape)));
    let mut training = Training { objective, phases, ema, batch, subject, step: STEP };
    Row::measure(what, args.repeats, subject.device, &mut || training.step())
}

struct Training<'a> {
    objective: Box<dyn Objective>,
    phases: Vec<(Phase, AdamW)>,
    ema: Ema,
    batch: Batch,
    subject: &'a Subject,
    step: u64,
}

impl Training<'_> {
    /// As `ldm_train::Trainer` on one rank without accumulation.
    fn step(&mut self) -> anyhow::Result<()> {
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
