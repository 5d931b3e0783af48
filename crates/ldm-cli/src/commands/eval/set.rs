//! Which images are measured.

use std::path::Path;
use std::sync::Arc;

use anyhow::bail;
use ldm_core::Result;
use ldm_data::{Batch, Dataset, Example, Loader, LoaderConfig, Peek, TransformConfig, open_path};
use ldm_metrics::FeatureNetwork;
use ldm_train::DataModule;
use tch::{Device, Tensor};

use super::maker::Maker;
use crate::args::{DataArgs, MeasureArgs};
use crate::progress::Printer;

/// Of the order of images, always the same.
const SEED: u64 = 0;

/// The set that was named; of a config what is held back, where anything is.
pub(super) fn open(args: &DataArgs) -> anyhow::Result<Arc<dyn Dataset>> {
    let path = &args.dataset;
    if is_config(path) {
        if args.size.is_some() {
            bail!("--size: {} says how large its images are", path.display());
        }
        let data = DataModule::read(path)?;
        let held_back = data.validation.as_ref().unwrap_or(&data.train);
        return Ok(held_back.open(path.parent().unwrap_or(Path::new(".")))?);
    }
    Ok(open_path(path, transform(args.size))?)
}

/// Whether a path names a config and not images.
pub(super) fn is_config(path: &Path) -> bool {
    path.extension().is_some_and(|extension| extension == "yaml" || extension == "yml")
}

/// Made images, without what lies beside them in an output folder of ours.
pub(super) fn open_made(path: &Path, size: Option<u32>) -> anyhow::Result<Arc<dyn Dataset>> {
    let data = open_path(path, transform(size))?;
    let beside = |index: &usize| {
        data.peek(*index)
            .is_ok_and(|peek| peek.name.starts_with("grid.") || peek.name.starts_with("previews/"))
    };
    let indices: Vec<usize> = (0..data.len()).filter(|index| !beside(index)).collect();
    if indices.is_empty() {
        bail!("{}: no made image", path.display());
    }
    let made: Arc<dyn Dataset> = Arc::new(Chosen { data, indices });
    check_sizes(&made, size)?;
    Ok(made)
}

/// Refuses images of different sizes that nobody asks to be prepared at one.
pub(super) fn check_sizes(data: &Arc<dyn Dataset>, size: Option<u32>) -> anyhow::Result<()> {
    // Whatever cannot be read is the loader's to say.
    let mut known = (0..data.len()).filter_map(|index| {
        let peek = data.peek(index).ok()?;
        Some((peek.name, peek.size))
    });
    let Some((first, [w0, h0])) = known.next().filter(|_| size.is_none()) else { return Ok(()) };
    match known.find(|(_, size)| *size != [w0, h0]) {
        Some((name, [w1, h1])) => bail!("{name}: is {w1}x{h1} where {first} is {w0}x{h0}: give --size"),
        None => Ok(()),
    }
}

/// The network that was asked for, or the best there is.
pub(super) fn network(how: &MeasureArgs, device: Device) -> Result<FeatureNetwork> {
    match &how.features {
        Some(name) => FeatureNetwork::named(name, device),
        None => FeatureNetwork::published_or_random(device),
    }
}

/// Says when `count` images are fewer than a covariance needs.
pub(super) fn warn_of_rank(network: &FeatureNetwork, count: i64) {
    let features = network.size();
    if count <= features {
        Printer::warn(&format!(
            "{count} images for {features} features: their covariance has not full rank, and the Fréchet distance compares \
             with that of as many images alone"
        ));
    }
}

/// Batches to be measured, and how many images they have.
pub(super) struct ImageSet<'a> {
    pub(super) count: usize,
    /// What each image is called, and `[B, 3, H, W]`.
    pub(super) batches: Box<dyn Iterator<Item = anyhow::Result<(Vec<String>, Tensor)>> + 'a>,
}

impl<'a> ImageSet<'a> {
    /// Of a set: [`batches`].
    pub(super) fn of(data: &Arc<dyn Dataset>, how: &MeasureArgs, strict: bool) -> anyhow::Result<Self> {
        let (count, batches) = batches(data, how, strict)?;
        Ok(Self {
            count,
            batches: Box::new(batches.map(|batch| batch.map(|b| (b.names, b.images)).map_err(Into::into))),
        })
    }

    /// Made on the fly.
    pub(super) fn made(maker: &'a mut Maker, count: usize, at_once: usize) -> Self {
        let batches = (0..count).step_by(at_once).map(move |start| {
            let images = start..count.min(start + at_once);
            let names = images.clone().map(|image| maker.name(image)).collect();
            Ok((names, maker.make(images, count)?))
        });
        Self { count, batches: Box::new(batches) }
    }
}

fn transform(size: Option<u32>) -> TransformConfig {
    size.map_or_else(TransformConfig::default, TransformConfig::square)
}

/// Batches of the first images of a fixed shuffle, and how many images they have.
pub(super) fn batches(
    data: &Arc<dyn Dataset>,
    how: &MeasureArgs,
    strict: bool,
) -> anyhow::Result<(usize, impl Iterator<Item = Result<Batch>> + use<>)> {
    check_counts(how)?;
    let count = how.num_images.unwrap_or(data.len());
    if count > data.len() {
        bail!("--num-images: {} has {} images, {count} are asked for", data.name(), data.len());
    }
    let config =
        LoaderConfig { workers: 1, strict, drop_last: false, ..LoaderConfig::new(how.batch_size, SEED) };
    Ok((count, Loader::one_pass(Arc::clone(data), config)?.head(count)))
}

/// Refuses to measure nothing.
pub(super) fn check_counts(how: &MeasureArgs) -> anyhow::Result<()> {
    if how.batch_size == 0 || how.num_images == Some(0) {
        bail!("--num-images and --batch-size: expected at least 1");
    }
    Ok(())
}

/// Some images of a set.
struct Chosen {
    data: Arc<dyn Dataset>,
    indices: Vec<usize>,
}

impl Dataset for Chosen {
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

    fn name(&self) -> String {
        self.data.name()
    }

    fn fingerprint(&self) -> String {
        self.data.fingerprint()
    }
}
