//! Evaluation of a model: images generated for the conditions of held-out images are compared with those.

use std::path::Path;
use std::sync::Arc;
use std::time::Instant;

use ldm_core::{Result, channels, image};
use ldm_data::{Batch, Dataset, Loader, LoaderConfig, none_readable};
use ldm_metrics::{FeatureNetwork, SetDistance, SetFeatures};
use ldm_pipelines::{GenerateRequest, LatentDiffusion, Sampling, generate};
use ldm_schedulers::SamplerConfig;
use ldm_train::prompt_for;
use tch::{Device, Tensor};

use super::results::Quality;
use super::study_file::MeasureConfig;
use crate::context::Context;

/// Seed of the order of images.
const SEED: u64 = 0;
/// Images on a sheet.
const SHOWN: i64 = 32;
const COLUMNS: i64 = 8;

/// Held-out images, and the network that compares generated ones with them.
pub(super) struct Evaluator {
    network: FeatureNetwork,
    data: Arc<dyn Dataset>,
    real: SetFeatures,
    measure: MeasureConfig,
    device: Device,
}

/// An evaluated set of generated images.
pub(super) struct EvaluatedSet {
    pub(super) quality: Quality,
    /// Seconds of sampling and decoding.
    pub(super) seconds: f64,
    /// The first images, side by side.
    sheet: Tensor,
}

impl Evaluator {
    /// Computes features of the first images of a fixed shuffle of `data`.
    pub(super) fn new(data: Arc<dyn Dataset>, measure: &MeasureConfig, device: Device) -> Result<Self> {
        let network = FeatureNetwork::published_or_random(device)?;
        let mut evaluator =
            Self { network, data, real: SetFeatures::default(), measure: measure.clone(), device };
        evaluator.real = evaluator.features(&evaluator.data, measure.reference)?;
        if evaluator.real.count() == 0 {
            return Err(none_readable(&*evaluator.data, None));
        }
        Ok(evaluator)
    }

    pub(super) fn network(&self) -> &FeatureNetwork {
        &self.network
    }

    /// Returns the number of held-out images.
    pub(super) fn count(&self) -> i64 {
        self.real.count()
    }

    fn features(&self, data: &Arc<dyn Dataset>, count: usize) -> Result<SetFeatures> {
        let mut features = SetFeatures::default();
        for batch in batches(data, count, self.measure.batch_size)? {
            let _ = features.add(&self.network, &channels::shown(&batch?.images).to_device(self.device))?;
        }
        Ok(features)
    }

    /// Evaluates as many other real images as are generated: the floor of the distances.
    pub(super) fn floor(&self, others: &Arc<dyn Dataset>) -> Result<Quality> {
        self.quality(&self.features(others, self.measure.images)?)
    }

    /// Samples a batch in one step, so that later timings do not include allocations and changes of memory format.
    pub(super) fn warm_up(&self, model: &LatentDiffusion) -> Result<()> {
        let count = self.measure.batch_size;
        if let Some(batch) = batches(&self.data, count, count)?.next() {
            let batch = batch?;
            let seeds: Vec<u64> = (0..batch.names.len() as u64).collect();
            generate(
                model,
                &GenerateRequest::new(&prompt_for(model, &batch)?, &seeds, &self.sampling(1)),
                &mut |_| {},
            )?;
        }
        Ok(())
    }

    fn sampling(&self, steps: usize) -> Sampling {
        Sampling {
            guidance: self.measure.guidance_scale.into(),
            ..Sampling::new(SamplerConfig::Ddim { eta: self.measure.eta }, steps)
        }
    }

    /// Samples in `steps` DDIM steps, image `i` with seed `i`, and compares the images with the held-out ones.
    pub(super) fn evaluate(&self, model: &LatentDiffusion, steps: usize) -> Result<EvaluatedSet> {
        let sampling = self.sampling(steps);
        let (mut features, mut seconds, mut shown) = (SetFeatures::default(), 0., Vec::new());
        let mut next = 0_u64;
        let wanted = self.measure.images as u64;
        while next < wanted {
            // Conditions repeat where there are fewer held-out images than images to generate.
            for batch in batches(&self.data, self.measure.reference, self.measure.batch_size)? {
                let batch = batch?.head((wanted - next) as usize);
                let count = batch.names.len() as u64;
                if count == 0 {
                    break;
                }
                let prompt = prompt_for(model, &batch)?;
                let seeds: Vec<u64> = (next..next + count).collect();
                let begun = Instant::now();
                let made = generate(model, &GenerateRequest::new(&prompt, &seeds, &sampling), &mut |_| {})?;
                // Reading a number waits for the device.
                let _ = made.images.sum(tch::Kind::Float).double_value(&[]);
                seconds += begun.elapsed().as_secs_f64();
                let images = made.images.clamp(-1., 1.);
                let _ = features.add(&self.network, &images)?;
                if (next as i64) < SHOWN {
                    let taken = (SHOWN - next as i64).min(count as i64);
                    shown.push(images.narrow(0, 0, taken).to_device(Device::Cpu));
                }
                next += count;
            }
        }
        let sheet = image::grid(&Tensor::cat(&shown, 0), COLUMNS, 2);
        Ok(EvaluatedSet { quality: self.quality(&features)?, seconds, sheet })
    }

    fn quality(&self, made: &SetFeatures) -> Result<Quality> {
        let SetDistance { frechet, spatial, kernel, manifold, inception_score } = self.real.distance(made)?;
        Ok(Quality {
            images: made.count(),
            frechet_distance: frechet,
            spatial_frechet_distance: spatial,
            kernel_distance: kernel.as_ref().map(Into::into),
            precision: manifold.map(|of| of.precision),
            recall: manifold.map(|of| of.recall),
            density: manifold.map(|of| of.density),
            coverage: manifold.map(|of| of.coverage),
            inception_score: inception_score.as_ref().map(Into::into),
        })
    }
}

impl EvaluatedSet {
    /// Writes a sheet of the first images.
    pub(super) fn write(&self, path: &Path) -> Result<()> {
        image::write_png(path, &self.sheet, &[])
    }
}

/// Returns the first `count` images of a fixed shuffle, or all where there are fewer.
pub(super) fn batches(
    data: &Arc<dyn Dataset>,
    count: usize,
    batch_size: usize,
) -> Result<impl Iterator<Item = Result<Batch>>> {
    let config = LoaderConfig { workers: 1, drop_last: false, ..LoaderConfig::new(batch_size, SEED) };
    let loader = Loader::one_pass(Arc::clone(data), config).context("the held-out images")?;
    Ok(loader.head(count))
}
