//! Generated images against their originals, pair by pair: super-resolution and inpainting (the paper's Tables 5 and 7).

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use ldm_core::{Result, channels};
use ldm_data::{Batch, Dataset, DatasetConfig, ImagesConfig, TransformConfig, collate, none_readable};
use ldm_metrics::{Lpips, MeanStd, ms_ssim, psnr, psnr_within, ssim};
use serde::Serialize;
use tch::{Device, Kind, Tensor, no_grad};

use super::image_set::{self, ImageSource, warn_of};
use crate::context::{Context, bail};
use crate::{Reporter, Spread};

/// Similarity of generated images and their originals.
#[derive(Debug, Serialize)]
pub struct PairedEvaluation {
    /// The name of the generated set.
    pub made: String,
    /// The name of the originals.
    pub dataset: String,
    /// The number of pairs.
    pub images: usize,
    /// Names of generated images without an original, left out.
    pub made_unmatched: Vec<String>,
    /// Names of originals without a generated image.
    pub unmatched: Vec<String>,
    /// Errors of the images that could not be read, whose pairs are left out.
    pub unreadable: Vec<String>,
    /// The mean filled share of an image, with masks.
    #[serde(serialize_with = "ldm_core::json::floats::serialize")]
    pub masked: Option<f64>,
    /// PSNR in dB; with masks, of the filled region alone.
    pub psnr: Spread,
    /// SSIM; with masks, of the filled region in the original.
    pub ssim: Spread,
    /// MS-SSIM, if all images are large enough.
    pub ms_ssim: Option<Spread>,
    /// LPIPS; with masks, of the filled region in the original.
    pub lpips: Spread,
    /// The network of LPIPS.
    pub lpips_trunk: String,
}

/// Compares the images at `made` with the originals of the same names, without their extensions.
///
/// With a folder of `masks` (`NAME` or `NAME_mask`, white where the image was filled) only the filled region counts: PSNR
/// is over its pixels, and the other metrics are of the region pasted into the original.
///
/// # Errors
/// When the sets share no name, two images of a set share one, sizes differ, or a mask is missing; with
/// `source.strict` for images that cannot be read or have no counterpart.
pub fn paired(
    made: &Path,
    source: &ImageSource,
    masks: Option<&Path>,
    device: Device,
    reporter: &dyn Reporter,
) -> Result<PairedEvaluation> {
    let pairs = Pairs::open(made, source, masks)?;
    if source.strict {
        if let Some(first) = pairs.unreadable.first() {
            bail!("{first}");
        }
        pairs.check_complete()?;
    }
    let lpips = Lpips::published_or_random(device)?;
    let [mut decibels, mut similarity, mut perceptual, mut share] = [(); 4].map(|()| MeanStd::new());
    let mut scales = Some(MeanStd::new());
    let mut unreadable = pairs.unreadable;
    reporter.progress(0, pairs.indices.len() as u64);
    for (done, &[index, original]) in pairs.indices.iter().enumerate() {
        reporter.progress(done as u64 + 1, pairs.indices.len() as u64);
        let read = image(&pairs.made, index, device)
            .and_then(|made| Ok((made, image(&pairs.originals, original, device)?)));
        let ((name, mut made), (_, original)) = match read {
            Ok(both) => both,
            Err(error) if source.strict => return Err(error),
            Err(error) => {
                unreadable.push(error.to_string());
                continue;
            }
        };
        check_size(&name, "its original", &made, &original)?;
        match &pairs.masks {
            None => decibels.add(&psnr(&made, &original)),
            Some(masks) => {
                let mask = masks.of(&name, &made)?;
                decibels.add(&psnr_within(&made, &original, &mask));
                share.add(&mask.mean(Kind::Double).view([1]));
                made = &made * &mask + &original * (1. - &mask);
            }
        }
        similarity.add(&ssim(&made, &original).with_context(|| name.clone())?);
        scales = scales.zip(ms_ssim(&made, &original).ok()).map(|(mut scales, found)| {
            scales.add(&found);
            scales
        });
        perceptual.add(&no_grad(|| lpips.distance(&made, &original)));
    }
    reporter.progress_end();
    if decibels.count() == 0 {
        return Err(none_readable(&*pairs.made, unreadable.first().map(String::as_str)));
    }
    warn_of("unreadable, left out", &unreadable, &pairs.made.name(), reporter);
    warn_of("no original of this name, left out", &pairs.unmatched[0], &pairs.made.name(), reporter);
    warn_of("no generated image of this name", &pairs.unmatched[1], &pairs.originals.name(), reporter);
    let [made_unmatched, unmatched] = pairs.unmatched;
    Ok(PairedEvaluation {
        made: pairs.made.name(),
        dataset: pairs.originals.name(),
        images: decibels.count(),
        made_unmatched,
        unmatched,
        unreadable,
        masked: masks.map(|_| share.mean()),
        psnr: (&decibels).into(),
        ssim: (&similarity).into(),
        ms_ssim: scales.as_ref().map(Into::into),
        lpips: (&perceptual).into(),
        lpips_trunk: lpips.trunk().name().into(),
    })
}

impl PairedEvaluation {
    /// Returns the lines of the table.
    pub fn table(&self) -> Vec<String> {
        let masked = self.masked.map(|share| format!(", {:.1} % of each filled", share * 100.));
        let mut lines = vec![format!(
            "{} pairs of {} and {}{}",
            self.images,
            self.made,
            self.dataset,
            masked.unwrap_or_default()
        )];
        lines.extend(self.psnr.line("PSNR", " dB"));
        lines.extend(self.ssim.line("SSIM", ""));
        lines.extend(self.ms_ssim.and_then(|ms_ssim| ms_ssim.line("MS-SSIM", "")));
        lines.extend(self.lpips.line("LPIPS", &format!(" ({})", self.lpips_trunk)));
        let unmatched = [&self.made_unmatched, &self.unmatched].map(Vec::len);
        if unmatched != [0, 0] {
            lines.push(format!("unmatched: {} generated, {} originals", unmatched[0], unmatched[1]));
        }
        lines
    }
}

/// Images of two sets by their common names.
struct Pairs {
    made: Arc<dyn Dataset>,
    originals: Arc<dyn Dataset>,
    masks: Option<MaskSet>,
    /// Indices of a generated image and its original.
    indices: Vec<[usize; 2]>,
    /// Names without counterpart, of either set.
    unmatched: [Vec<String>; 2],
    /// Errors of the images whose size cannot be read.
    unreadable: Vec<String>,
}

impl Pairs {
    fn open(made: &Path, source: &ImageSource, masks: Option<&Path>) -> Result<Self> {
        let made = image_set::open_made(made, source.size)?;
        let originals = image_set::open(source)?;
        let mut unreadable = Vec::new();
        let own = by_name(&made, &mut unreadable)?;
        let mut left = by_name(&originals, &mut unreadable)?;
        let (mut indices, mut alone) = (Vec::new(), Vec::new());
        for (name, index) in own {
            match left.remove(&name) {
                Some(original) => indices.push([index, original]),
                None => alone.push(made.peek(index)?.name),
            }
        }
        let missing =
            left.into_values().map(|index| Ok(originals.peek(index)?.name)).collect::<Result<Vec<_>>>()?;
        if indices.is_empty() {
            let first = alone.first().map_or("", String::as_str);
            bail!(
                "{}: expected names of images of {}, got none that it has, e.g. {first}",
                made.name(),
                originals.name()
            );
        }
        let masks = masks.map(MaskSet::open).transpose()?;
        Ok(Self { made, originals, masks, indices, unmatched: [alone, missing], unreadable })
    }

    /// Refuses images without counterpart.
    fn check_complete(&self) -> Result<()> {
        for (names, set) in self.unmatched.iter().zip([&self.made, &self.originals]) {
            if let Some(first) = names.first() {
                let count = names.len();
                bail!("{}: expected images in pairs, got {count} without, e.g. {first}", set.name());
            }
        }
        Ok(())
    }
}

/// Masks by the names of their images.
struct MaskSet {
    data: Arc<dyn Dataset>,
    by_name: BTreeMap<String, usize>,
}

impl MaskSet {
    fn open(path: &Path) -> Result<Self> {
        // With their alpha channel, which is the mask where it is not opaque.
        let config = ImagesConfig {
            alpha: true,
            ..ImagesConfig::new(path.to_string_lossy(), TransformConfig::default())
        };
        let data = DatasetConfig::Images(Box::new(config)).open(Path::new(""))?;
        let mut unreadable = Vec::new();
        let by_name = by_name(&data, &mut unreadable)?;
        match unreadable.into_iter().next() {
            Some(first) => bail!("{first}"),
            None => Ok(Self { data, by_name }),
        }
    }

    /// Returns the mask of an image, `[1, 1, H, W]`: 1 where it is at least half white.
    fn of(&self, name: &str, image: &Tensor) -> Result<Tensor> {
        let stem = stem(name);
        let index = self.by_name.get(&format!("{stem}_mask")).or_else(|| self.by_name.get(stem));
        let Some(&index) = index else {
            bail!("{}: expected a mask of {name}, {stem} or {stem}_mask, got none", self.data.name());
        };
        let Batch { names, images, .. } = collate(vec![self.data.get(index, 0)?])?;
        let (mask_name, mask) = (&names[0], images.to_device(image.device()));
        check_size(mask_name, "its image", &mask, image)?;
        let alpha = mask.narrow(1, 3, 1);
        let by_alpha = alpha.min().double_value(&[]) < 1.;
        let gray = if by_alpha { alpha } else { channels::convert(&mask, 1) };
        let mask = gray.ge(0.).to_kind(Kind::Float);
        if mask.any().int64_value(&[]) == 0 {
            bail!("{mask_name}: expected white pixels in the mask, got none");
        }
        Ok(mask)
    }
}

/// Returns the indices of images by their names without the extension; adds the errors of others to `unreadable`.
fn by_name(data: &Arc<dyn Dataset>, unreadable: &mut Vec<String>) -> Result<BTreeMap<String, usize>> {
    let mut found = BTreeMap::new();
    for index in 0..data.len() {
        let name = match data.peek(index) {
            Ok(peek) => peek.name,
            Err(error) => {
                unreadable.push(error.to_string());
                continue;
            }
        };
        if let Some(other) = found.insert(stem(&name).to_owned(), index) {
            let other = data.peek(other)?.name;
            bail!("{}: expected one image of a name, got {other} and {name}", data.name());
        }
    }
    Ok(found)
}

/// A name without its extension.
fn stem(name: &str) -> &str {
    name.rsplit_once('.').filter(|(_, extension)| !extension.contains('/')).map_or(name, |(stem, _)| stem)
}

/// Reads one image: its name, and `[1, 3, H, W]`.
fn image(data: &Arc<dyn Dataset>, index: usize, device: Device) -> Result<(String, Tensor)> {
    let batch = collate(vec![data.get(index, 0)?])?;
    let name = batch.names.into_iter().next().unwrap_or_default();
    Ok((name, channels::shown(&batch.images).to_device(device)))
}

fn check_size(name: &str, other: &str, got: &Tensor, expected: &Tensor) -> Result<()> {
    let [(w0, h0), (w1, h1)] = [expected, got].map(|x| (x.size()[3], x.size()[2]));
    if (w0, h0) != (w1, h1) {
        bail!("{name}: expected {w0}x{h0}, as {other}, got {w1}x{h1}; try --size");
    }
    Ok(())
}
