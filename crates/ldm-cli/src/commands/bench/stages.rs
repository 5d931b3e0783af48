//! Encoding, decoding, denoising, sampling.

use anyhow::Context;
use ldm_pipelines::{GenerateRequest, LatentDiffusion, Model, Sampling, generate};
use ldm_schedulers::{SamplerConfig, Spacing};
use tch::nn::VarStore;
use tch::{Kind, Tensor};

use super::inputs;
use super::measure::{Row, What};
use super::subject::Subject;
use crate::args::{BenchArgs, Stage};
use crate::progress::Printer;

/// The middle of the schedule; the time of a forward pass does not depend on it.
const TIME: i64 = 500;

/// Times one stage of a model that is there; the first stage has two lines.
pub(super) fn time(
    stage: Stage,
    args: &BenchArgs,
    subject: &Subject,
    model: &Model,
    printer: Printer,
) -> anyhow::Result<Vec<Row>> {
    let clock = Clock { args, subject, printer };
    if stage == Stage::Autoencoder {
        return clock.autoencoder(model);
    }
    let Model::Diffusion(model) = model else { unreachable!("a first stage has neither U-Net nor samples") };
    Ok(vec![if stage == Stage::Unet { clock.unet(model)? } else { clock.sample(model)? }])
}

#[derive(Clone, Copy)]
struct Clock<'a> {
    args: &'a BenchArgs,
    subject: &'a Subject,
    printer: Printer,
}

impl Clock<'_> {
    fn measure(self, what: What, run: &mut dyn FnMut() -> anyhow::Result<()>) -> anyhow::Result<Row> {
        self.printer.say(&format!("{} {}", what.stage, shape(&what.shape)));
        Row::measure(what, self.args.repeats, self.subject.device, run)
    }

    fn autoencoder(self, model: &Model) -> anyhow::Result<Vec<Row>> {
        model.first_stage().check_image_size(self.subject.size)?;
        let image = inputs::images(self.subject, self.args.batch_size, self.subject.device);
        let [channels, h, w] = model.first_stage().latent_size(self.subject.size);
        let z = inputs::noise(&[self.args.batch_size, channels, h, w], self.subject.device);
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

    /// One forward pass, keys and values of the context included, which a sampler computes once an image.
    fn unet(self, model: &LatentDiffusion) -> anyhow::Result<Row> {
        let [h, w] = self.subject.latent_size();
        model.check_image_size(self.subject.size)?;
        let x = inputs::noise(&[self.args.batch_size, model.config.channels, h, w], self.subject.device);
        let t = Tensor::full([self.args.batch_size], TIME, (Kind::Int64, self.subject.device));
        let prompt = inputs::prompt(self.subject, &model.config, self.args.batch_size);
        let cond = tch::no_grad(|| model.condition(&prompt, false))?;
        let what = what("unet", x.size(), Some(1), model.vs(), &["model.diffusion_model.".into()]);
        self.measure(what, &mut || {
            let _ = tch::no_grad(|| model.unet.forward(&x, &t, &cond, false));
            Ok(())
        })
    }

    fn sample(self, model: &LatentDiffusion) -> anyhow::Result<Row> {
        let sampling = Sampling {
            sampler: SamplerConfig::Ddim { eta: 0. },
            spacing: Spacing::default(),
            steps: self.args.steps,
            guidance: 1_f64.into(),
            size: Some(self.subject.size),
            tile: None,
            thresholding: model.default_sampling().thresholding,
        };
        let prompt = inputs::prompt(self.subject, &model.config, self.args.batch_size);
        let seeds: Vec<u64> = (0..self.args.batch_size as u64).collect();
        let [height, width] = self.subject.size;
        let images = vec![self.args.batch_size, self.subject.image_channels(), height, width];
        let what = what("sample", images, Some(self.args.steps), model.vs(), &[String::new()]);
        self.measure(what, &mut || {
            generate(model, &GenerateRequest::new(&prompt, &seeds, &sampling), &mut |_| {})
                .context("sample")?;
            Ok(())
        })
    }
}

/// What is timed, made of the variables of `vs` whose names start with one of `parts`.
pub(super) fn what(
    stage: &'static str,
    shape: Vec<i64>,
    steps: Option<usize>,
    vs: &VarStore,
    parts: &[String],
) -> What {
    let variables = vs.variables();
    let of = variables.iter().filter(|(name, _)| parts.iter().any(|part| name.starts_with(part.as_str())));
    let (parameters, weight_bytes) = of.fold((0, 0), |(count, bytes), (_, tensor)| {
        (count + tensor.numel(), bytes + tensor.numel() * tensor.kind().elt_size_in_bytes())
    });
    What { stage, shape, steps, parameters, weight_bytes }
}

/// `2x4x64x64`
pub(super) fn shape(shape: &[i64]) -> String {
    shape.iter().map(ToString::to_string).collect::<Vec<_>>().join("x")
}
