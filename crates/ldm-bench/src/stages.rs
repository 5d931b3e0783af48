//! Timing of encoding, decoding, denoising, sampling.

use ldm_core::{Error, Result};
use ldm_pipelines::{GenerateRequest, LatentDiffusion, Model, Sampling, generate};
use ldm_schedulers::SamplerConfig;
use tch::nn::VarStore;
use tch::{Kind, Tensor};

use crate::inputs;
use crate::measure::{StageInfo, StageRun};
use crate::subject::BenchSubject;
use crate::{BenchConfig, BenchEvent, BenchStage};

/// The middle of the schedule; the time of a forward pass does not depend on it.
const TIME: i64 = 500;

/// Times one stage of a model; the first stage has two rows.
pub(crate) fn time(
    stage: BenchStage,
    config: BenchConfig,
    subject: &BenchSubject,
    model: &Model,
    observe: &mut dyn FnMut(BenchEvent),
) -> Result<Vec<StageRun>> {
    let mut clock = Clock { config, subject, observe };
    if stage == BenchStage::Autoencoder {
        return clock.autoencoder(model);
    }
    let Model::Diffusion(model) = model else { unreachable!("a first stage has neither U-Net nor samples") };
    Ok(vec![if stage == BenchStage::Unet { clock.unet(model)? } else { clock.sample(model)? }])
}

/// A stage timer.
struct Clock<'a> {
    config: BenchConfig,
    subject: &'a BenchSubject,
    observe: &'a mut dyn FnMut(BenchEvent),
}

impl Clock<'_> {
    fn measure(&mut self, what: StageInfo, run: &mut dyn FnMut() -> Result<()>) -> Result<StageRun> {
        (self.observe)(BenchEvent::Stage { stage: what.stage, shape: &what.shape });
        StageRun::measure(what, self.config.repeats, self.subject.device, run)
    }

    fn autoencoder(&mut self, model: &Model) -> Result<Vec<StageRun>> {
        model.first_stage().check_image_size(self.subject.size)?;
        let image = inputs::images(self.subject, self.config.batch_size, self.subject.device);
        let [channels, h, w] = model.first_stage().latent_size(self.subject.size);
        let z = inputs::noise(&[self.config.batch_size, channels, h, w], self.subject.device);
        let root = if matches!(model, Model::Diffusion(_)) { "first_stage_model." } else { "" };
        let of =
            |parts: &[&str]| -> Vec<String> { parts.iter().map(|part| format!("{root}{part}")).collect() };
        let encode = what("encode", image.size(), None, model.vs(), &of(&["encoder.", "quant_conv."]));
        let parts = of(&["decoder.", "post_quant_conv.", "quantize."]);
        let decode = what("decode", z.size(), None, model.vs(), &parts);
        Ok(vec![
            self.measure(encode, &mut || {
                let _ = model.encode(&image).mode();
                Ok(())
            })?,
            self.measure(decode, &mut || {
                let _ = model.decode(&z);
                Ok(())
            })?,
        ])
    }

    /// Returns one forward pass, including keys and values of the context, which a sampler computes once per image.
    fn unet(&mut self, model: &LatentDiffusion) -> Result<StageRun> {
        let [h, w] = self.subject.latent_size();
        model.check_image_size(self.subject.size)?;
        let x = inputs::noise(&[self.config.batch_size, model.config.channels, h, w], self.subject.device);
        let t = Tensor::full([self.config.batch_size], TIME, (Kind::Int64, self.subject.device));
        let prompt = inputs::prompt(self.subject, &model.config, self.config.batch_size);
        let cond = tch::no_grad(|| model.condition(&prompt, false))?;
        let what = what("unet", x.size(), Some(1), model.vs(), &["model.diffusion_model.".into()]);
        self.measure(what, &mut || {
            let _ = tch::no_grad(|| model.unet.forward(&x, &t, &cond, false));
            Ok(())
        })
    }

    fn sample(&mut self, model: &LatentDiffusion) -> Result<StageRun> {
        let sampling = Sampling {
            size: Some(self.subject.size),
            thresholding: model.default_sampling().thresholding,
            ..Sampling::new(SamplerConfig::Ddim { eta: 0. }, self.config.steps)
        };
        let prompt = inputs::prompt(self.subject, &model.config, self.config.batch_size);
        let seeds: Vec<u64> = (0..self.config.batch_size as u64).collect();
        let [height, width] = self.subject.size;
        let images = vec![self.config.batch_size, self.subject.image_channels(), height, width];
        let what = what("sample", images, Some(self.config.steps), model.vs(), &[String::new()]);
        self.measure(what, &mut || {
            generate(model, &GenerateRequest::new(&prompt, &seeds, &sampling), &mut |_| {})
                .map_err(|error| Error::invalid(format!("sample: {error}")))?;
            Ok(())
        })
    }
}

/// Returns a stage whose parameters are the variables of `vs` with one of the prefixes `parts`.
pub(crate) fn what(
    stage: &'static str,
    shape: Vec<i64>,
    steps: Option<usize>,
    vs: &VarStore,
    parts: &[String],
) -> StageInfo {
    let variables = vs.variables();
    let of = variables.iter().filter(|(name, _)| parts.iter().any(|part| name.starts_with(part.as_str())));
    let (parameters, weight_bytes) = of.fold((0, 0), |(count, bytes), (_, tensor)| {
        (count + tensor.numel(), bytes + tensor.numel() * tensor.kind().elt_size_in_bytes())
    });
    StageInfo { stage, shape, steps, parameters, weight_bytes }
}

/// Formats a shape: `2x4x64x64`.
pub fn shape_text(shape: &[i64]) -> String {
    shape.iter().map(ToString::to_string).collect::<Vec<_>>().join("x")
}
