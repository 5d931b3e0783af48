//! The rate–distortion curve of a diffusion model (the paper's Figure 2; Ho et al. 2020, §4.3 and Figure 5).

use std::fmt::Write;

use ldm_core::noise::Seeded;
use ldm_core::{Conditioning, Error, Result, channels};
use ldm_data::Batch;
use ldm_pipelines::{Conditioned, LatentDiffusion, Network};
use ldm_schedulers::{Denoiser, NoiseLevel, NoiseSchedule, progressive_code};
use ldm_train::{check_classes, check_label_maps, prompt_for};
use serde::Serialize;
use tch::{Kind, Tensor};

use super::image_set::{self, ImageSource, SetOptions};
use super::rate_plot;
use crate::Reporter;
use crate::context::bail;

/// The part of a set to code, and the levels.
#[derive(Debug, Clone)]
pub struct RateOptions {
    /// The first images of a fixed shuffle; all where absent.
    pub num_images: Option<usize>,
    /// Images per batch.
    pub batch_size: usize,
    /// Noise levels of the code, evenly spaced among the timesteps; at least 2.
    pub steps: usize,
    /// Image i of the shuffle takes its noise from `seed + i`.
    pub seed: u64,
}

/// A point of the curve.
#[derive(Debug, Clone, Copy, Serialize)]
pub struct RatePoint {
    /// The timestep.
    pub t: f64,
    /// Bits per dimension of an image that are sent up to it.
    pub rate: f64,
    /// Root mean squared error of the decoded prediction, in gray levels of 0 to 255.
    pub distortion: f64,
}

/// The rate–distortion curve of a model on a set of images.
#[derive(Debug, Serialize)]
pub struct RateDistortion {
    /// The name of the set.
    pub dataset: String,
    /// Its fingerprint.
    pub fingerprint: String,
    /// The number of images.
    pub images: usize,
    /// Errors of the images that could not be read and are left out.
    pub unreadable: Vec<String>,
    /// Dimensions of an image: channels, height and width multiplied.
    pub dimensions: i64,
    /// Height and width of the images.
    pub size: [i64; 2],
    /// Distortion of the first stage alone, to which the curve falls.
    pub first_stage: f64,
    /// The points, noisiest first.
    pub points: Vec<RatePoint>,
}

/// Codes the images of `source` progressively (see [`progressive_code`]), and measures at each level the rate and the
/// distortion of the decoded prediction. The condition of an image costs nothing.
///
/// # Errors
/// When images or their conditions cannot be read or do not fit the model, or are of its null class; when images have
/// several sizes, or the model no such number of timesteps.
pub fn rate_distortion(
    model: &LatentDiffusion,
    source: &ImageSource,
    options: &RateOptions,
    reporter: &dyn Reporter,
) -> Result<RateDistortion> {
    let levels = levels(&model.schedule, options.steps)?;
    let input = model.input().pixels()?;
    if model.noises_condition() {
        bail!(
            "num_timesteps_cond: expected 1, since the rate of a noised condition is not defined, got more"
        );
    }
    let data = image_set::open(source)?;
    check_classes(&model.config, &*data)?;
    check_label_maps(&model.config, &*data)?;
    let set = SetOptions { num_images: options.num_images, batch_size: options.batch_size, features: None };
    let (count, mut batches) = image_set::batches(&data, &set, source.strict)?;
    let mut sums = CurveSums::new(levels.len());
    let total = (count * levels.len()) as u64;
    reporter.progress(0, total);
    for batch in &mut batches {
        let batch = batch?;
        let images = channels::convert(&batch.images, input).to_device(model.vs().device());
        let size = [images.size()[2], images.size()[3]];
        model.check_image_size(size)?;
        sums.check_size(size, &batch)?;
        let seeds = (0..batch.names.len()).map(|index| options.seed + (sums.images + index) as u64);
        let mut noise = Seeded::new(seeds);
        tch::no_grad(|| -> Result<()> {
            let z = model.encode(&images, &mut noise);
            sums.first_stage += squared_error(&model.decode(&z), &images);
            let denoiser = denoiser(model, &batch)?;
            let done = sums.images * levels.len();
            progressive_code(&*denoiser, &levels, &z, &mut noise, &mut |index, coded| {
                sums.nats[index] += coded.nats.sum(Kind::Double).double_value(&[]);
                sums.squares[index] += squared_error(&model.decode(&coded.x0), &images);
                reporter.progress((done + (index + 1) * batch.names.len()) as u64, total);
            });
            Ok(())
        })?;
        sums.images += batch.names.len();
    }
    reporter.progress_end();
    model.check_files()?;
    let unreadable = image_set::left_out(&*data, &batches, sums.images as i64, reporter)?;
    let size = sums.size.unwrap_or_default();
    let dimensions = input * size[0] * size[1];
    let found = RateDistortion {
        dataset: data.name(),
        fingerprint: data.fingerprint(),
        images: sums.images,
        unreadable,
        dimensions,
        size,
        first_stage: sums.rmse(sums.first_stage, dimensions),
        points: sums.points(&levels, dimensions),
    };
    if found.points.iter().any(|point| !point.rate.is_finite() || !point.distortion.is_finite()) {
        bail!("model: expected finite predictions, got NaN or Inf; try --dtype f32");
    }
    Ok(found)
}

impl RateDistortion {
    /// Returns the curve as CSV, with a header.
    pub fn csv(&self) -> String {
        self.points.iter().fold(
            "t,bits_per_dim,rmse\n".to_owned(),
            |mut text, RatePoint { t, rate, distortion }| {
                // Writing to a string does not fail.
                let _ = writeln!(text, "{t},{rate},{distortion}");
                text
            },
        )
    }

    /// Returns the curve as SVG.
    ///
    /// # Errors
    /// When the drawing library fails.
    pub fn svg(&self) -> Result<String> {
        rate_plot::svg(self)
    }

    /// Returns the lines of the table: about ten points of the curve.
    pub fn table(&self) -> Vec<String> {
        let last = self.points.len() - 1;
        let shown = last.min(10);
        let mut lines = vec![
            format!("{} images of {}, {}x{}", self.images, self.dataset, self.size[1], self.size[0]),
            format!("{:>10} {:>12} {:>10}", "timestep", "bits per dim", "RMSE"),
        ];
        lines.extend((0..=shown).map(|place| {
            let RatePoint { t, rate, distortion } = self.points[place * last / shown];
            format!("{t:>10} {rate:>12.6} {distortion:>10.4}")
        }));
        lines.push(format!("{:>10} {:>12} {:>10.4}", "encoder", "", self.first_stage));
        lines
    }
}

/// The levels of `steps` timesteps, evenly spaced from the last to 0.
fn levels(schedule: &NoiseSchedule, steps: usize) -> Result<Vec<NoiseLevel>> {
    let total = schedule.timesteps();
    if !(2..=total).contains(&steps) {
        return Err(Error::expected(
            "--steps",
            format!("2 to {total}, the timesteps of this model"),
            steps.to_string(),
        ));
    }
    let t = |index: usize| ((total - 1) * (steps - 1 - index) * 2 + steps - 1) / (2 * (steps - 1));
    Ok((0..steps).map(|index| schedule.level(t(index))).collect())
}

/// The network conditioned as in training, with the thresholding of the model.
fn denoiser<'a>(model: &'a LatentDiffusion, batch: &Batch) -> Result<Box<dyn Denoiser + 'a>> {
    let cond = model.condition(&prompt_for(model, batch)?, false)?;
    let cast = |tensor: Option<Tensor>| tensor.map(|tensor| tensor.to_kind(model.kind()));
    let cond = Conditioning { concat: cast(cond.concat), context: cast(cond.context), label: cond.label };
    let network = Network::new(&model.unet, model.parameterization);
    let denoiser: Box<dyn Denoiser + 'a> = Box::new(Conditioned::new(network, &cond));
    Ok(match model.thresholding() {
        Some(thresholding) => thresholding.apply(denoiser),
        None => denoiser,
    })
}

/// Sums over the images of a set.
struct CurveSums {
    images: usize,
    size: Option<[i64; 2]>,
    first_stage: f64,
    nats: Vec<f64>,
    squares: Vec<f64>,
}

impl CurveSums {
    fn new(levels: usize) -> Self {
        Self { images: 0, size: None, first_stage: 0., nats: vec![0.; levels], squares: vec![0.; levels] }
    }

    /// Refuses images of another size than those before.
    fn check_size(&mut self, size: [i64; 2], batch: &Batch) -> Result<()> {
        let [h0, w0] = *self.size.get_or_insert(size);
        let [h1, w1] = size;
        if [h0, w0] != size {
            bail!(
                "{}: expected {w0}x{h0}, as the images before it, got {w1}x{h1}; try --size",
                batch.names[0]
            );
        }
        Ok(())
    }

    /// Root of a sum of squares per dimension.
    fn rmse(&self, squares: f64, dimensions: i64) -> f64 {
        (squares / (self.images as f64 * dimensions as f64)).sqrt()
    }

    fn points(&self, levels: &[NoiseLevel], dimensions: i64) -> Vec<RatePoint> {
        let bits = |nats: f64| nats / std::f64::consts::LN_2 / (self.images as f64 * dimensions as f64);
        levels
            .iter()
            .zip(&self.nats)
            .zip(&self.squares)
            .map(|((level, nats), squares)| RatePoint {
                t: level.t,
                rate: bits(*nats),
                distortion: self.rmse(*squares, dimensions),
            })
            .collect()
    }
}

/// Sum of the squared errors of images in gray levels of 0 to 255; `made` is clamped, as on saving.
fn squared_error(made: &Tensor, images: &Tensor) -> f64 {
    let error = (made.clamp(-1., 1.) - images) * 127.5;
    error.square().sum(Kind::Double).double_value(&[])
}

#[cfg(test)]
mod tests {
    use super::*;
    use ldm_schedulers::ScheduleConfig;

    #[test]
    fn levels_are_even_and_reach_both_ends() {
        let schedule = NoiseSchedule::new(&ScheduleConfig::default()).unwrap();
        let of = |steps| {
            levels(&schedule, steps).map(|found| found.iter().map(|level| level.t).collect::<Vec<_>>())
        };
        assert_eq!(of(2).unwrap(), [999., 0.]);
        assert_eq!(of(4).unwrap(), [999., 666., 333., 0.]);
        assert_eq!(of(1000).unwrap(), (0..1000).rev().map(f64::from).collect::<Vec<_>>());
        let error = of(1).unwrap_err().to_string();
        assert_eq!(error, "--steps: expected 2 to 1000, the timesteps of this model, got 1");
    }
}
