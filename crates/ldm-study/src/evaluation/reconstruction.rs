//! Reconstructions of a first stage.

use ldm_core::{Result, channels};
use ldm_metrics::{Lpips, MeanStd, Reconstructions, ms_ssim};
use ldm_pipelines::Model;
use serde::Serialize;
use tch::Device;

use super::extremes::{Extremes, NamedValue};
use super::image_set::{self, ImageSource, SetOptions};
use crate::context::bail;
use crate::{Reporter, Spread};

/// Quality of the reconstructions of a first stage.
#[derive(Debug, Serialize)]
pub struct ReconstructionEvaluation {
    /// The name of the set.
    pub dataset: String,
    /// Its fingerprint.
    pub fingerprint: String,
    /// The number of images.
    pub images: i64,
    /// Errors of the images that could not be read and are left out.
    pub unreadable: Vec<String>,
    /// PSNR in dB.
    pub psnr: Spread,
    /// SSIM.
    pub ssim: Spread,
    /// MS-SSIM, if all images are large enough.
    pub ms_ssim: Option<Spread>,
    /// LPIPS.
    pub lpips: Spread,
    /// The network of LPIPS.
    pub lpips_trunk: String,
    /// Fréchet distance of reconstructions and originals (rFID by Inception); of two images or more.
    #[serde(serialize_with = "ldm_core::json::floats::serialize")]
    pub frechet_distance: Option<f64>,
    /// The same of spatial features.
    #[serde(serialize_with = "ldm_core::json::floats::serialize")]
    pub spatial_frechet_distance: Option<f64>,
    /// Inception score of the reconstructions.
    pub inception_score: Option<Spread>,
    /// The network that compares sets.
    pub features: String,
    /// The best images by PSNR.
    pub best: Vec<NamedValue>,
    /// The worst images by PSNR.
    pub worst: Vec<NamedValue>,
    /// Originals above reconstructions of these.
    #[serde(skip)]
    pub extremes: Extremes,
}

impl ReconstructionEvaluation {
    /// Returns the lines of the table.
    pub fn table(&self) -> Vec<String> {
        let mut lines = vec![format!("{} images of {}", self.images, self.dataset)];
        lines.extend(self.psnr.line("PSNR", " dB"));
        lines.extend(self.ssim.line("SSIM", ""));
        lines.extend(self.ms_ssim.and_then(|ms_ssim| ms_ssim.line("MS-SSIM", "")));
        lines.extend(self.lpips.line("LPIPS", &format!(" ({})", self.lpips_trunk)));
        let distance = match self.frechet_distance {
            Some(distance) => format!("{distance:.4} ({})", self.features),
            None => "not defined for one image".into(),
        };
        lines.push(format!("{:<17} {distance}", "Frechet distance"));
        lines
    }
}

/// Encodes and decodes the images of `source` and compares them with their originals.
///
/// # Errors
/// When images cannot be read, have a size that the first stage cannot encode, or are decoded to NaN or Inf.
pub fn reconstruction(
    model: &Model,
    device: Device,
    source: &ImageSource,
    options: &SetOptions,
    reporter: &dyn Reporter,
) -> Result<ReconstructionEvaluation> {
    let channels = model.input().pixels()?;
    if channels::has_alpha(channels) {
        bail!(
            "first stage: expected gray or RGB images, since LPIPS and FID have no alpha channel, got {channels} channels"
        );
    }
    model.first_stage().check_reconstructs()?;
    let data = image_set::open(source)?;
    let (count, mut batches) = image_set::batches(&data, options, source.strict)?;
    let lpips = Lpips::published_or_random(device)?;
    let network = image_set::network(options, device)?;
    let mut measured = Reconstructions::new(lpips, network);
    let mut scales = Some(MeanStd::new());
    let mut extremes = Extremes::default();
    reporter.progress(0, count as u64);
    for batch in &mut batches {
        let batch = batch?;
        // Gray as the first stage takes it, in three equal channels.
        let images = channels::shown(&channels::convert(&batch.images, channels)).to_device(device);
        model.first_stage().check_image_size([images.size()[2], images.size()[3]])?;
        let decoded = channels::shown(&model.decode(&model.encode(&images).mode()));
        if decoded.isfinite().all().int64_value(&[]) == 0 {
            bail!("first stage: expected finite values, got NaN or Inf; try --dtype f32");
        }
        let decibels = measured.add(&decoded, &images)?;
        // Of no image if one is too small for it.
        scales = scales.zip(ms_ssim(&decoded, &images).ok()).map(|(mut scales, found)| {
            scales.add(&found);
            scales
        });
        extremes.add(&decibels, &batch.names, &[&images, &decoded]);
        reporter.progress(measured.count() as u64, count as u64);
    }
    reporter.progress_end();
    model.check_files()?;
    let images = measured.count();
    let unreadable = image_set::left_out(&*data, &batches, images, reporter)?;
    let sets = (images > 1).then(|| measured.frechet()).transpose()?;
    image_set::warn_of_rank(measured.network(), images, reporter);
    let [best, worst] = extremes.names();
    Ok(ReconstructionEvaluation {
        dataset: data.name(),
        fingerprint: data.fingerprint(),
        images,
        unreadable,
        psnr: (&measured.psnr).into(),
        ssim: (&measured.ssim).into(),
        ms_ssim: scales.as_ref().map(Into::into),
        lpips: (&measured.lpips_distance).into(),
        lpips_trunk: measured.trunk().name().into(),
        frechet_distance: sets.map(|(pooled, _)| pooled),
        spatial_frechet_distance: sets.and_then(|(_, spatial)| spatial),
        inception_score: measured.back.inception_score()?.as_ref().map(Into::into),
        features: measured.network().name().into(),
        best,
        worst,
        extremes,
    })
}
