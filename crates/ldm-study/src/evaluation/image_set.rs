//! Image sets to evaluate.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use ldm_core::{Result, channels};
use ldm_data::{
    Batch, Dataset, Example, Loader, LoaderConfig, LoaderHead, Peek, TransformConfig, none_readable,
    open_path,
};
use ldm_metrics::FeatureNetwork;
use ldm_train::DataModule;
use tch::{Device, Tensor};

use super::generator::ImageGenerator;
use crate::Reporter;
use crate::context::bail;

/// Seed of the order of images.
const SEED: u64 = 0;

/// Limit of warnings of one kind about a set; its document has all.
const SHOWN: usize = 16;

/// A set of real images by its path.
#[derive(Debug, Clone)]
pub struct ImageSource {
    /// A folder, a tar file, a synthetic set, or a config, for its held-out set.
    pub path: PathBuf,
    /// The size to prepare images at: smallest side resized, center cropped.
    pub size: Option<u32>,
    /// Fail on an unreadable image.
    pub strict: bool,
}

/// The part of a set to evaluate, and the network that compares sets.
#[derive(Debug, Clone)]
pub struct SetOptions {
    /// The first images of a fixed shuffle; all where absent.
    pub num_images: Option<usize>,
    /// Images per batch.
    pub batch_size: usize,
    /// One of [`FeatureNetwork::NAMES`]. Default: Inception if it is installed, else a random VGG16.
    pub features: Option<String>,
}

/// Opens a set of real images; of a config, the validation set, else the training set.
pub(super) fn open(source: &ImageSource) -> Result<Arc<dyn Dataset>> {
    let path = &source.path;
    if is_config(path) {
        if source.size.is_some() {
            bail!("--size: expected images, got {}, a config that has a size", path.display());
        }
        let data = DataModule::read(path)?;
        let held_out = data.validation.as_ref().unwrap_or(&data.train);
        return held_out.open(path.parent().unwrap_or(Path::new(".")));
    }
    open_path(path, transform(source.size))
}

/// Returns true for the path of a config.
pub(crate) fn is_config(path: &Path) -> bool {
    path.extension().is_some_and(|extension| extension == "yaml" || extension == "yml")
}

/// Opens generated images, without the grid and the previews of an output folder of `ldm`.
///
/// # Errors
/// When there are no images, or images of several sizes and `size` is absent.
pub fn open_generated(path: &Path, size: Option<u32>) -> Result<Arc<dyn Dataset>> {
    let generated = open_made(path, size)?;
    check_sizes(&generated, size)?;
    Ok(generated)
}

/// [`open_generated`], of any sizes.
pub(super) fn open_made(path: &Path, size: Option<u32>) -> Result<Arc<dyn Dataset>> {
    let data = open_path(path, transform(size))?;
    let is_extra = |index: &usize| {
        data.peek(*index)
            .is_ok_and(|peek| peek.name.starts_with("grid.") || peek.name.starts_with("previews/"))
    };
    let indices: Vec<usize> = (0..data.len()).filter(|index| !is_extra(index)).collect();
    if indices.is_empty() {
        bail!("{}: expected generated images, got none", path.display());
    }
    Ok(Arc::new(ImageSubset { data, indices }))
}

/// Refuses images of different sizes, unless they are prepared at one.
pub(super) fn check_sizes(data: &Arc<dyn Dataset>, size: Option<u32>) -> Result<()> {
    // The loader reports unreadable images.
    let mut known = (0..data.len()).filter_map(|index| {
        let peek = data.peek(index).ok()?;
        Some((peek.name, peek.size))
    });
    let Some((first, [w0, h0])) = known.next().filter(|_| size.is_none()) else { return Ok(()) };
    match known.find(|(_, size)| *size != [w0, h0]) {
        Some((name, [w1, h1])) => {
            bail!("{name}: expected {w0}x{h0}, as {first}, got {w1}x{h1}; try --size")
        }
        None => Ok(()),
    }
}

/// Returns the requested network, or the best one installed.
pub(super) fn network(options: &SetOptions, device: Device) -> Result<FeatureNetwork> {
    match &options.features {
        Some(name) => FeatureNetwork::named(name, device),
        None => FeatureNetwork::published_or_random(device),
    }
}

/// Warns when `count` images are too few for a covariance of full rank.
pub(super) fn warn_of_rank(network: &FeatureNetwork, count: i64, reporter: &dyn Reporter) {
    let features = network.size();
    if count <= features {
        reporter.warn(&format!(
            "{count} images for {features} features: their covariance has not full rank, and the Fréchet distance compares \
             with that of as many images alone"
        ));
    }
}

/// Batches of images to evaluate: the names of the images, and `[B, 3, H, W]`.
pub(super) struct ImageSet<'a> {
    /// The number of images.
    pub(super) count: usize,
    batches: Batches<'a>,
}

enum Batches<'a> {
    Stored(Arc<dyn Dataset>, LoaderHead),
    Generated(Box<dyn Iterator<Item = Result<(Vec<String>, Tensor)>> + 'a>),
}

impl Iterator for ImageSet<'_> {
    type Item = Result<(Vec<String>, Tensor)>;

    fn next(&mut self) -> Option<Self::Item> {
        match &mut self.batches {
            Batches::Stored(_, batches) => {
                Some(batches.next()?.map(|Batch { names, images, .. }| (names, channels::shown(&images))))
            }
            Batches::Generated(batches) => batches.next(),
        }
    }
}

impl<'a> ImageSet<'a> {
    /// Reads the images of a set, see [`batches`].
    pub(super) fn of(data: &Arc<dyn Dataset>, options: &SetOptions, strict: bool) -> Result<Self> {
        let (count, batches) = batches(data, options, strict)?;
        Ok(Self { count, batches: Batches::Stored(Arc::clone(data), batches) })
    }

    /// Returns the images that were left out, see [`left_out`], after `read` of them were read.
    pub(super) fn left_out(&self, read: i64, reporter: &dyn Reporter) -> Result<Vec<String>> {
        match &self.batches {
            Batches::Stored(data, batches) => left_out(&**data, batches, read, reporter),
            Batches::Generated(_) => Ok(Vec::new()),
        }
    }

    /// Returns the name of the set.
    pub(super) fn name(&self) -> String {
        match &self.batches {
            Batches::Stored(data, _) => data.name(),
            Batches::Generated(_) => "--num-images".into(),
        }
    }

    /// Generates the images on the fly.
    pub(super) fn generated(
        generator: &'a mut ImageGenerator,
        count: usize,
        batch_size: usize,
        reporter: &'a dyn Reporter,
    ) -> Self {
        let batches = (0..count).step_by(batch_size).map(move |start| {
            let images = start..count.min(start + batch_size);
            let names = images.clone().map(|image| generator.name(image)).collect();
            Ok((names, generator.images(images, count, reporter)?))
        });
        Self { count, batches: Batches::Generated(Box::new(batches)) }
    }
}

fn transform(size: Option<u32>) -> TransformConfig {
    size.map_or_else(TransformConfig::default, TransformConfig::square)
}

/// Returns batches of the first images of a fixed shuffle, and the number of images.
pub(super) fn batches(
    data: &Arc<dyn Dataset>,
    options: &SetOptions,
    strict: bool,
) -> Result<(usize, LoaderHead)> {
    check_counts(options)?;
    let count = options.num_images.unwrap_or(data.len());
    if count > data.len() {
        bail!("--num-images: expected at most the {} images of {}, got {count}", data.len(), data.name());
    }
    let config =
        LoaderConfig { workers: 1, strict, drop_last: false, ..LoaderConfig::new(options.batch_size, SEED) };
    Ok((count, Loader::one_pass(Arc::clone(data), config)?.head(count)))
}

/// Returns the errors of images that could not be read and are left out of the numbers, after warnings of the first of
/// them and of entries that hold no image.
///
/// # Errors
/// When `read`, the number of images that were read, is 0.
pub(super) fn left_out(
    data: &dyn Dataset,
    batches: &LoaderHead,
    read: i64,
    reporter: &dyn Reporter,
) -> Result<Vec<String>> {
    let unreadable: Vec<String> = batches.skipped().map(str::to_owned).collect();
    if read == 0 {
        return Err(none_readable(data, unreadable.first().map(String::as_str)));
    }
    warn_of_left_out(data, &unreadable, reporter);
    Ok(unreadable)
}

/// Warns of images that are left out of the numbers, and of entries that hold no image.
pub(crate) fn warn_of_left_out(data: &dyn Dataset, unreadable: &[String], reporter: &dyn Reporter) {
    for (what, entries) in [("unreadable, left out", unreadable), ("passed over", data.passed_over())] {
        warn_of(what, entries, &data.name(), reporter);
    }
}

/// Warns of the first entries of a list, and of the number of the others.
pub(super) fn warn_of(what: &str, entries: &[String], set: &str, reporter: &dyn Reporter) {
    entries.iter().take(SHOWN).for_each(|entry| reporter.warn(&format!("{what}: {entry}")));
    if let Some(more) = entries.len().checked_sub(SHOWN).filter(|more| *more > 0) {
        reporter.warn(&format!("{what}: {more} more of {set}"));
    }
}

/// Refuses to evaluate no images.
pub(super) fn check_counts(options: &SetOptions) -> Result<()> {
    if options.batch_size == 0 || options.num_images == Some(0) {
        bail!("--num-images and --batch-size: expected at least 1");
    }
    Ok(())
}

/// Some images of a set.
struct ImageSubset {
    data: Arc<dyn Dataset>,
    indices: Vec<usize>,
}

impl Dataset for ImageSubset {
    fn len(&self) -> usize {
        self.indices.len()
    }

    fn get(&self, index: usize, seed: u64) -> Result<Example> {
        self.data.get(self.indices[index], seed)
    }

    fn peek(&self, index: usize) -> Result<Peek> {
        self.data.peek(self.indices[index])
    }

    fn classes(&self) -> &[String] {
        self.data.classes()
    }

    fn passed_over(&self) -> &[String] {
        self.data.passed_over()
    }

    fn name(&self) -> String {
        self.data.name()
    }

    fn fingerprint(&self) -> String {
        self.data.fingerprint()
    }
}
