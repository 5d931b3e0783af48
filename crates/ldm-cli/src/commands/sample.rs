//! `ldm sample`: unconditional and class-conditional sampling.

use std::ops::Range;
use std::path::Path;

use anyhow::{Context, bail};
use ldm::{NamedClassifier, one_hot_labels, parse_class, read_labels};
use ldm_core::{Prompt, image};
use ldm_pipelines::{ConditioningKind, GuidingClassifier, LatentDiffusion};
use serde_json::{Map, Value, json};
use tch::Tensor;

use crate::args::{ModelArgs, SampleArgs};
use crate::classifier;
use crate::generation::repeated;
use crate::generation::{GenerationJob, Task};
use crate::model;
use crate::progress::Printer;

pub(crate) fn run(args: &SampleArgs, printer: Printer) -> anyhow::Result<()> {
    classifier::check(&args.classifier, &args.class)?;
    let job = GenerationJob::new(&args.generate, "sample", args.generate.num_images)?;
    let model_args = ModelArgs { overrides: args.overrides.clone(), ..args.model.clone() };
    let model = model::open_diffusion(&model_args, None)?;
    let pair = ConditioningKind::hybrid_parts(&model.config);
    match pair {
        Some([_, ConditioningKind::Class]) => {}
        _ => model::check_conditioning(
            &model,
            &args.model,
            &[ConditioningKind::Unconditional, ConditioningKind::Class],
        )?,
    }
    let image = match (pair, &args.image) {
        (Some([kind, _]), Some(path)) => Some(concatenated(kind, path, &model)?),
        (Some([kind, _]), None) => {
            bail!("--image: expected {kind}, which the model is conditioned on, got none")
        }
        (None, Some(_)) => {
            bail!("--image: expected a model conditioned on an image and a class, got another")
        }
        (None, None) => None,
    };
    let classifier = classifier::open(&args.classifier, &model)?;
    let classes = classes(args, &model, classifier.as_ref())?;
    let task = ClassTask { classes, image, model: &model, classifier };
    job.run(&model, &model_args, task, printer)
}

/// Images with a class each, or unconditional ones.
struct ClassTask<'a> {
    classes: Vec<i64>,
    /// The image or the map of a hybrid model, of one image.
    image: Option<Prompt>,
    model: &'a LatentDiffusion,
    classifier: Option<NamedClassifier>,
}

impl ClassTask<'_> {
    /// Returns the name of an image's class, else its number.
    fn name(&self, image: usize) -> Option<String> {
        let class = *self.classes.get(image)?;
        let own = self.model.classes.get(class as usize);
        let name =
            own.or_else(|| self.classifier.as_ref().and_then(|classifier| classifier.class_name(class)));
        Some(name.cloned().unwrap_or_else(|| class.to_string()))
    }
}

impl Task for ClassTask<'_> {
    fn prompt(&self, images: Range<usize>) -> anyhow::Result<Prompt> {
        let part = |tensor: &Option<Tensor>| tensor.as_ref().map(|one| repeated(one, images.clone()));
        let (image, mask) =
            self.image.as_ref().map_or((None, None), |one| (part(&one.image), part(&one.mask)));
        let classes = self.classes.get(images.clone()).map_or_else(Prompt::default, Prompt::class);
        Ok(Prompt { image, mask, ..classes })
    }

    fn classifier(&self) -> Option<&GuidingClassifier> {
        self.classifier.as_ref().map(NamedClassifier::guiding)
    }

    fn heading(&self, image: usize) -> String {
        self.name(image).map_or(String::new(), |class| format!("class: {class}\n"))
    }

    fn parameters(&self) -> String {
        self.classifier.as_ref().map_or(String::new(), NamedClassifier::parameters)
    }

    fn json(&self, image: usize) -> Map<String, Value> {
        let class = [("class".to_owned(), json!(self.name(image)))];
        class.into_iter().chain(self.classifier.iter().flat_map(NamedClassifier::json)).collect()
    }
}

/// Reads the image or the label map of a hybrid model.
fn concatenated(kind: ConditioningKind, path: &Path, model: &LatentDiffusion) -> anyhow::Result<Prompt> {
    if kind == ConditioningKind::SemanticMap {
        let map =
            one_hot_labels(&read_labels(path, None)?, model).with_context(|| path.display().to_string())?;
        return Ok(Prompt { mask: Some(map), ..Prompt::default() });
    }
    let image = image::from_rgb8(&image::read(path)?).unsqueeze(0);
    let [height, width] = [image.size()[2], image.size()[3]];
    model.unet.check_size([height, width]).with_context(|| path.display().to_string())?;
    Ok(Prompt { image: Some(image), ..Prompt::default() })
}

/// Returns the class of each image, cycling through those requested.
fn classes(
    args: &SampleArgs,
    model: &LatentDiffusion,
    classifier: Option<&NamedClassifier>,
) -> anyhow::Result<Vec<i64>> {
    let Some(count) = model.config.classes() else {
        if !args.class.is_empty() && classifier.is_none() {
            bail!("--class: expected a class-conditional model or --classifier, got an unconditional model");
        }
        if args.generate.sampling.guidance_scale.is_some_and(|scale| scale != 1.) {
            bail!("--guidance-scale: expected a conditional model, got an unconditional one");
        }
        return match classifier {
            Some(classifier) => cycled(args, |word| classifier.class(word)),
            None => Ok(Vec::new()),
        };
    };
    if args.class.is_empty() {
        let known = if model.classes.is_empty() {
            format!("a number from 0 to {}", count - 1)
        } else {
            format!("one of {}", model.classes.join(", "))
        };
        bail!("--class: expected {known}, got none");
    }
    let classes = cycled(args, |word| parse_class(word, &model.classes, count))?;
    for class in &classes {
        classifier.map_or(Ok(()), |classifier| classifier.check_class(*class))?;
    }
    Ok(classes)
}

/// Returns the classes of `--class`, repeated for all images.
fn cycled(args: &SampleArgs, class: impl Fn(&str) -> ldm::Result<i64>) -> anyhow::Result<Vec<i64>> {
    let words = args.class.iter().map(|word| class(word.trim()));
    let classes: Vec<i64> = words.collect::<ldm::Result<_>>()?;
    Ok(classes.iter().copied().cycle().take(args.generate.num_images).collect())
}
