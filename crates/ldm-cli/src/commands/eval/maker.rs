//! ImageSet made on the fly.

use std::ops::Range;

use anyhow::{Context, bail};
use ldm_core::{Prompt, image};
use ldm_pipelines::{ConditioningKind, GenerateRequest, Init, LatentDiffusion, Sampling, generate};
use serde_json::{Value, json};
use tch::Tensor;

use crate::args::{GenerationArgs, MakerArgs, ModelArgs};
use crate::progress::Printer;
use crate::{model, sampling};

/// A model and how it is sampled from.
pub(super) struct Maker<'a> {
    args: &'a MakerArgs,
    named: ModelArgs,
    model: Box<LatentDiffusion>,
    sampling: Sampling,
    /// Those it is asked for in turn; none of an unconditional model.
    classes: Vec<i64>,
    widened: bool,
}

impl<'a> Maker<'a> {
    /// The one asked for, if any.
    ///
    /// # Errors
    /// When the model needs to be told more than a class, or cannot be sampled from as asked.
    pub(super) fn open(args: &'a GenerationArgs) -> anyhow::Result<Option<Self>> {
        let Some(path) = &args.maker.model else {
            return refuse(&args.maker).map(|()| None);
        };
        let device = args.device.clone();
        let args = &args.maker;
        let named = ModelArgs {
            model: path.clone(),
            config: args.config.clone(),
            ema: false,
            no_ema: args.no_ema,
            dtype: args.dtype.clone(),
            device,
        };
        let model = model::open_diffusion(&named, None)?;
        model::check_conditioning(
            &model,
            &named,
            &[ConditioningKind::Unconditional, ConditioningKind::Class],
        )
        .context("--model: make the images first, and give their folder")?;
        let classes = classes(&model);
        let how = &args.sampling;
        if classes.is_empty() && how.guidance_scale.is_some_and(|scale| scale != 1.) {
            bail!("--guidance-scale: this model is unconditional, and has nothing to be guided away from");
        }
        model.merge(&how.loras)?;
        model.to_channels_last();
        model::keep_freed_memory(model.kind());
        let sampling = sampling::resolve(how, &model)?;
        // What the sampler cannot is said before the real set is gone through.
        sampling.sampler.plan(&model.schedule, &sampling.spacing, sampling.steps)?;
        Ok(Some(Self { args, named, model, sampling, classes, widened: false }))
    }

    /// Some of `count` images, as `ldm sample` would save them: `[B, 3, H, W]` in `[-1, 1]`, in steps of 8 bits.
    ///
    /// # Errors
    /// As [`generate`].
    pub(super) fn make(&mut self, images: Range<usize>, count: usize) -> anyhow::Result<Tensor> {
        let seeds: Vec<u64> = images.clone().map(|image| self.args.seed + image as u64).collect();
        let prompt = match self.classes.len() {
            0 => Prompt::default(),
            known => {
                let turn = known.min(count);
                // Fewer images than classes are spread over all of these.
                let class = |image: usize| self.classes[image % turn * known / turn];
                Prompt::class(&images.map(class).collect::<Vec<i64>>())
            }
        };
        let noise: Option<&Tensor> = None;
        let made = generate(
            &self.model,
            &GenerateRequest::new(&prompt, &seeds, &self.sampling).init(Init::from(noise)),
            &mut |_| {},
        )?;
        if made.decoded_in_f32 && !std::mem::replace(&mut self.widened, true) {
            Printer::warn(&format!("the first stage overflowed in {}, and was run in f32", self.named.dtype));
        }
        let saved =
            (0..seeds.len() as i64).map(|index| image::from_rgb8(&image::to_rgb8(&made.images.get(index))));
        Ok(Tensor::stack(&saved.collect::<Vec<_>>(), 0))
    }

    /// What an image is called.
    pub(super) fn name(&self, image: usize) -> String {
        format!("seed {}", self.args.seed + image as u64)
    }

    /// What makes the same images again.
    pub(super) fn json(&self) -> Value {
        let (how, guidance) = (&self.args.sampling, &self.sampling.guidance);
        let loras: Vec<String> = how.loras.iter().map(ToString::to_string).collect();
        json!({
            "model": self.named.model, "ema": !self.named.no_ema, "dtype": self.named.dtype, "loras": loras,
            "seed": self.args.seed, "classes": self.classes.len(),
            "sampler": self.sampling.sampler.name(), "eta": self.sampling.sampler.eta(),
            "spacing": how.spacing, "steps": self.sampling.steps,
            "guidance_scale": guidance.scale, "guidance_rescale": guidance.rescale,
            "guidance_interval": how.guidance_interval.map(|span| [span.low, span.high]),
            "size": self.sampling.size, "tile": self.sampling.tile,
        })
    }
}

/// The classes of a model, without the one that means none.
fn classes(model: &LatentDiffusion) -> Vec<i64> {
    let none = model.conditioner.null_prompt(1).ok().and_then(|prompt| prompt.class);
    let none = none.map(|class| class.int64_value(&[0]));
    (0..model.config.classes().unwrap_or(0)).filter(|class| Some(*class) != none).collect()
}

/// Refuses what is said of a model that is not there.
fn refuse(args: &MakerArgs) -> anyhow::Result<()> {
    let how = &args.sampling;
    let said = [
        ("--sampler", how.sampler.is_some()),
        ("--spacing", how.spacing.is_some()),
        ("--steps", how.steps.is_some()),
        ("--eta", how.eta.is_some()),
        ("--guidance-scale", how.guidance_scale.is_some()),
        ("--guidance-rescale", how.guidance_rescale != 0.),
        ("--guidance-interval", how.guidance_interval.is_some()),
        ("--height", how.height.is_some()),
        ("--tile", how.tile.is_some()),
        ("--lora", !how.loras.is_empty()),
    ];
    match said.iter().find(|(_, said)| *said) {
        Some((name, _)) => bail!("{name}: these images are made already, give --model to make others"),
        None => Ok(()),
    }
}
