//! Distances of generated images to real ones.

use std::path::Path;

use ldm_core::Result;
use ldm_core::json::number;
use ldm_metrics::{FeatureNetwork, MeanStd, Origin, Retain, SetDistance, SetFeatures, SetMoments};
use serde::Serialize;
use serde_json::{Map, Value, json};
use tch::{Device, Tensor};

use super::extremes::{Extremes, NamedValue};
use super::generator::GeneratedImages;
use super::image_set::{self, ImageSet, SetOptions};
use super::reference::{ReferenceContent, ReferenceSet, UNCHANGED};
use crate::Reporter;
use crate::context::{Context, bail};

/// A mean and a standard deviation over parts of a set.
#[derive(Debug, Clone, Copy, Serialize)]
pub struct SpreadOfParts {
    /// The mean.
    #[serde(serialize_with = "ldm_core::json::float::serialize")]
    pub mean: f64,
    /// The standard deviation.
    #[serde(serialize_with = "ldm_core::json::float::serialize")]
    pub std: f64,
    /// The number of parts.
    pub parts: usize,
}

impl From<&MeanStd> for SpreadOfParts {
    fn from(sum: &MeanStd) -> Self {
        Self { mean: sum.mean(), std: sum.std(), parts: sum.count() }
    }
}

/// Distances of generated images to real ones.
pub struct GenerationEvaluation {
    /// The number of generated images.
    pub images: i64,
    /// Errors of real and of generated images that could not be read and are left out.
    pub unreadable: [Vec<String>; 2],
    /// Height and width of all images; none if there are none.
    pub size: Option<[i64; 2]>,
    /// The distances.
    pub distance: SetDistance,
    /// The network that compares sets.
    pub features: String,
    /// Name and fingerprint of a set of generated images; none of a model's.
    pub generated: Option<[String; 2]>,
    /// Distance of each generated image to the nearest real one, if the real set is given as images: mean, deviation, the
    /// nearest and the farthest images.
    pub nearest: Option<NearestReal>,
    reference: Map<String, Value>,
}

/// Distances of generated images to the nearest real ones.
pub struct NearestReal {
    /// Mean and deviation.
    pub distance: MeanStd,
    /// The nearest and the farthest images.
    pub extremes: Extremes,
}

impl GenerationEvaluation {
    /// Returns the content of `results.json`.
    pub fn document(&self) -> Map<String, Value> {
        let found = &self.distance;
        let parts = |sum: &Option<MeanStd>| json!(sum.as_ref().map(SpreadOfParts::from));
        let manifold = |of: fn(&ldm_metrics::Manifold) -> f64| {
            found.manifold.as_ref().map_or(Value::Null, |found| number(of(found)))
        };
        let [name, fingerprint] = self.generated.clone().map_or([None, None], |both| both.map(Some));
        let mut document = self.reference.clone();
        document.extend(
            [
                ("features", json!(self.features)),
                ("frechet_distance", number(found.frechet)),
                ("spatial_frechet_distance", found.spatial.map_or(Value::Null, number)),
                ("kernel_distance", parts(&found.kernel)),
                ("precision", manifold(|of| of.precision)),
                ("recall", manifold(|of| of.recall)),
                ("density", manifold(|of| of.density)),
                ("coverage", manifold(|of| of.coverage)),
                ("neighbours", json!(found.manifold.map(|_| SetFeatures::NEIGHBOR))),
                ("inception_score", parts(&found.inception_score)),
                ("made", json!(name)),
                ("made_images", json!(self.images)),
                ("made_fingerprint", json!(fingerprint)),
                ("made_unreadable", json!(self.unreadable[1])),
                ("unreadable", json!(self.unreadable[0])),
                ("size", json!(self.size)),
            ]
            .map(|(name, value)| (name.to_owned(), value)),
        );
        if let Some(nearest) = &self.nearest {
            let [best, worst]: [Vec<NamedValue>; 2] = nearest.extremes.names();
            let (mean, std) = (number(nearest.distance.mean()), number(nearest.distance.std()));
            document.insert(
                "nearest_real".into(),
                json!({"mean": mean, "std": std, "best": best, "worst": worst}),
            );
        }
        document
    }
}

/// Returns the lines of the table of a [document](GenerationEvaluation::document), to which the caller has added
/// `sampling`.
pub fn generation_table(document: &Value) -> Vec<String> {
    let text = |value: &Value| value.as_str().unwrap_or("an unnamed set").to_owned();
    let generated = document["made"].as_str().map_or_else(
        || format!("{}, seed {}", text(&document["sampling"]["model"]), document["sampling"]["seed"]),
        ToOwned::to_owned,
    );
    let real = match document["images"].as_i64() {
        Some(images) => format!("{images} real images ({})", text(&document["dataset"])),
        None => format!("real images: {}", text(&document["statistics"])),
    };
    let mut lines = vec![
        format!("{} generated images ({generated})", document["made_images"]),
        real,
        format!("{:<24} {}", "features", text(&document["features"])),
    ];
    for name in ["frechet_distance", "spatial_frechet_distance", "precision", "recall", "density", "coverage"]
    {
        lines.extend(document[name].as_f64().map(|value| format!("{name:<24} {value:.4}")));
    }
    for name in ["kernel_distance", "inception_score", "nearest_real"] {
        if let (Some(mean), Some(std)) = (document[name]["mean"].as_f64(), document[name]["std"].as_f64()) {
            lines.push(format!("{name:<24} {mean:.6} +- {std:.6}"));
        }
    }
    lines
}

/// Comparison of sets by the features of a network.
pub struct GenerationEvaluator<'a> {
    network: FeatureNetwork,
    options: SetOptions,
    reporter: &'a dyn Reporter,
    /// The size of all images so far, and the set that has it.
    size: Option<([i64; 2], String)>,
    resized: bool,
}

/// Receives a batch: the names of its images, the images, their features.
type ObserveBatch<'a> = &'a mut dyn FnMut(&[String], &Tensor, &Tensor) -> Result<()>;

impl<'a> GenerationEvaluator<'a> {
    /// Loads the network.
    ///
    /// # Errors
    /// When its weights cannot be read.
    pub fn new(options: SetOptions, device: Device, reporter: &'a dyn Reporter) -> Result<Self> {
        let network = image_set::network(&options, device)?;
        Ok(Self { network, options, reporter, size: None, resized: false })
    }

    /// Writes mean and covariance of the features of `reference` to an `.npz`.
    ///
    /// # Errors
    /// When images cannot be read, or the file cannot be written.
    pub fn save_statistics(&mut self, reference: &ReferenceSet, path: &Path) -> Result<()> {
        let (real, _) = self.real(reference, Retain::Nothing)?;
        self.write_statistics(reference, real.as_ref(), path)
    }

    /// Compares generated images with `reference`, and writes its statistics if a path is given.
    ///
    /// # Errors
    /// When images cannot be read, generated or compared.
    pub fn evaluate(
        &mut self,
        reference: &ReferenceSet,
        generated: &mut GeneratedImages,
        statistics: Option<&Path>,
    ) -> Result<GenerationEvaluation> {
        let (mut real, unreadable) = self.real(reference, Retain::All)?;
        if let Some(path) = statistics {
            self.write_statistics(reference, real.as_ref(), path)?;
        }
        let (strict, reporter) = (reference.source.strict, self.reporter);
        let images = match generated {
            GeneratedImages::Set(data) => ImageSet::of(data, &self.options, strict)?,
            GeneratedImages::Model(generator) => {
                let count = reference.count(&self.options)?;
                ImageSet::generated(generator, count, self.options.batch_size, reporter)
            }
        };
        let mut extremes = Extremes::default();
        let mut apart = MeanStd::new();
        let retain = if real.is_some() { Retain::All } else { Retain::Logits };
        let (drawn, unreadable_drawn) = self.gather(retain, images, &mut |names, images, features| {
            if let Some(real) = &mut real {
                let nearest = real.nearest(features)?;
                apart.add(&nearest);
                extremes.add(&-nearest, names, &[images]);
            }
            Ok(())
        })?;
        let distance = match (&reference.content, &real) {
            (ReferenceContent::Moments(_, moments), _) => moments.distance(&drawn)?,
            (_, Some(real)) => real.distance(&drawn)?,
            _ => unreachable!("a set was gathered"),
        };
        let real_count = real.as_ref().map(SetFeatures::count);
        let least = drawn.count().min(real_count.unwrap_or(i64::MAX));
        image_set::warn_of_rank(&self.network, least, reporter);
        Ok(GenerationEvaluation {
            images: drawn.count(),
            unreadable: [unreadable, unreadable_drawn],
            size: self.size.as_ref().map(|(size, _)| *size),
            distance,
            features: self.network.name().into(),
            generated: match generated {
                GeneratedImages::Set(data) => Some([data.name(), data.fingerprint()]),
                GeneratedImages::Model(_) => None,
            },
            nearest: real.is_some().then_some(NearestReal { distance: apart, extremes }),
            reference: reference.json(real_count)?,
        })
    }

    /// Returns the features of real images, and the errors of those that were left out; none of statistics, which are
    /// checked.
    fn real(
        &mut self,
        reference: &ReferenceSet,
        retain: Retain,
    ) -> Result<(Option<SetFeatures>, Vec<String>)> {
        self.resized = reference.source.size.is_some();
        match &reference.content {
            ReferenceContent::Moments(path, moments) => {
                self.check_statistics(moments, reference).with_context(|| path.display().to_string())?;
                Ok((None, Vec::new()))
            }
            ReferenceContent::Images(data) => {
                let images = ImageSet::of(data, &self.options, reference.source.strict)?;
                let (features, unreadable) = self.gather(retain, images, &mut |_, _, _| Ok(()))?;
                Ok((Some(features), unreadable))
            }
        }
    }

    /// Checks that statistics are of this network, and of the requested size and method of resizing, as far as they tell.
    fn check_statistics(&mut self, moments: &SetMoments, reference: &ReferenceSet) -> Result<()> {
        moments.check(&self.network)?;
        let source = &reference.source;
        if let Some([h, w]) = moments.origin.size {
            if let Some(size) = source.size.filter(|size| [h, w] != [i64::from(*size); 2]) {
                bail!("statistics: expected images of {size}x{size}, as --size, got {w}x{h}; try --size {w}");
            }
            self.size = Some(([h, w], "the statistics".into()));
        }
        let (stored, own) = (moments.origin.resizer.as_deref(), reference.resizer());
        if let (Some(stored), Some(own)) = (stored, own)
            && stored != own
            && stored != UNCHANGED
            && own != UNCHANGED
        {
            bail!(
                "statistics: expected images resized by {own}, as --size does, got {stored}; try without --size"
            );
        }
        Ok(())
    }

    fn write_statistics(
        &self,
        reference: &ReferenceSet,
        real: Option<&SetFeatures>,
        path: &Path,
    ) -> Result<()> {
        let (ReferenceContent::Images(data), Some(real)) = (&reference.content, real) else {
            bail!("--save-statistics: expected images, got statistics");
        };
        let mut moments = real.moments()?;
        moments.origin = Origin {
            features: Some(self.network.name().into()),
            dataset: Some(data.name()),
            fingerprint: Some(data.fingerprint()),
            size: self.size.as_ref().map(|(size, _)| *size),
            resizer: reference.resizer(),
            ..moments.origin
        };
        moments.write_npz(path)
    }

    /// Returns the features of the images, and the errors of those that were left out.
    fn gather(
        &mut self,
        retain: Retain,
        mut images: ImageSet,
        observe: ObserveBatch,
    ) -> Result<(SetFeatures, Vec<String>)> {
        let mut features = SetFeatures::retaining(retain);
        let count = images.count as u64;
        self.reporter.progress(0, count);
        for batch in &mut images {
            let (names, batch) = batch?;
            self.check_size(&names, &batch)?;
            let seen = features.add(&self.network, &batch)?;
            observe(&names, &batch, &seen)?;
            self.reporter.progress(features.count() as u64, count);
        }
        self.reporter.progress_end();
        let unreadable = images.left_out(features.count(), self.reporter)?;
        if features.count() < 2 {
            bail!("{}: expected at least 2 images, whose features have a covariance, got 1", images.name());
        }
        Ok((features, unreadable))
    }

    /// Checks that all images have one size: a network that resizes them could separate the sets by it.
    fn check_size(&mut self, names: &[String], batch: &Tensor) -> Result<()> {
        let [height, width] = [batch.size()[2], batch.size()[3]];
        let seen = || ([height, width], "the images before it".to_owned());
        let ([h, w], origin) = self.size.get_or_insert_with(seen);
        if [height, width] != [*h, *w] {
            let option = if self.resized { "another --size" } else { "--size" };
            bail!("{}: expected {w}x{h}, as {origin}, got {width}x{height}; try {option}", names[0]);
        }
        Ok(())
    }
}
