//! Previews of a diffusion model: samples next to their conditions.

use std::sync::atomic::AtomicBool;

use ldm_core::{Error, Prompt, Result, channels};
use ldm_data::{Batch, SheetNames, condition_sheet};
use ldm_pipelines::{ConditioningKind, GenerateRequest, Sampling, generate};
use ldm_schedulers::{SamplerConfig, Spacing};
use tch::Tensor;

use crate::config::SampleConfig;
use crate::objective::Preview;
use crate::objective::diffusion::DiffusionObjective;
use crate::objective::model_checks::check_guidance;
use crate::objective::prompt_for::prompt_for;

impl Preview for DiffusionObjective {
    fn check(&self, config: &SampleConfig) -> Result<()> {
        let below = |error| match error {
            Error::Invalid(message) => Error::Invalid(format!("train.samples.{message}")),
            other => other,
        };
        let (sampler, spacing) = self.preview_sampler(config);
        sampler.plan(&self.model().schedule, &spacing, config.steps).map_err(below)?;
        if config.guidance_scale != 1. && self.model().config.conditioning_key().is_some() {
            check_guidance(self.model(), config.guidance_scale)?;
        }
        // With conditions of a batch there may be fewer.
        let count = if takes_batch(ConditioningKind::of(&self.model().config)) { 1 } else { config.count };
        self.model().check_generated(count, None, false).map_err(below)
    }

    /// Samples one image per class, cyclically; with any other condition, at most one per prompt of the batch, whose image
    /// is shown too. CompVis `ddpm.py:1251` `log_images`.
    fn preview(&self, batch: &Batch, config: &SampleConfig, stop: &AtomicBool) -> Result<Tensor> {
        let columns = (config.count as f64).sqrt().ceil() as i64;
        let mut count = config.count;
        let model = &self.model().config;
        let kind = ConditioningKind::of(model);
        let of_batch = takes_batch(kind);
        let prompt = match kind {
            ConditioningKind::Unconditional => Prompt::default(),
            ConditioningKind::Class => {
                let null =
                    model.class().is_some_and(|class| class.null_class.is_some() || class.n_classes == 1001);
                let classes = model.classes().unwrap_or(1) - i64::from(null);
                Prompt::class(&(0..count as i64).map(|i| i % classes).collect::<Vec<_>>())
            }
            _ => {
                count = count.min(batch.images.size()[0] as usize);
                prompt_for(self.model(), batch)?.narrow(0, count as i64)
            }
        };
        let (sampler, spacing) = self.preview_sampler(config);
        let sampling = Sampling {
            spacing,
            guidance: config.guidance_scale.into(),
            thresholding: self.model().thresholding(),
            ..Sampling::new(sampler, config.steps)
        };
        let seeds: Vec<u64> = (0..count as u64).collect();
        let request = GenerateRequest::new(&prompt, &seeds, &sampling).stopped_by(stop);
        let output = generate(self.model(), &request, &mut |_| {})?;
        let samples = channels::shown(&output.images.clamp(-1., 1.));
        let drawn = prompt.batch().is_some() && config.conditions;
        if !drawn {
            return Ok(ldm_core::image::grid(&samples, columns, 2));
        }
        let [classes, box_classes] = self.names();
        let originals = (of_batch && batch.images.numel() > 0)
            .then(|| channels::shown(&batch.images.narrow(0, 0, count as i64)));
        Ok(condition_sheet(&samples, &prompt, originals.as_ref(), SheetNames { classes, box_classes }))
    }
}

impl DiffusionObjective {
    /// LCM for a consistency model, else DDIM.
    fn preview_sampler(&self, config: &SampleConfig) -> (SamplerConfig, Spacing) {
        if self.is_consistency() {
            (SamplerConfig::Lcm {}, Spacing::Lcm)
        } else {
            (SamplerConfig::Ddim { eta: config.eta }, Spacing::default())
        }
    }
}

/// Returns true for samples whose conditions are those of a batch.
fn takes_batch(kind: ConditioningKind) -> bool {
    !matches!(kind, ConditioningKind::Unconditional | ConditioningKind::Class)
}
