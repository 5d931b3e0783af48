//! Which pictures are measured.

use std::path::Path;
use std::sync::Arc;

use anyhow::bail;
use ldm_core::Result;
use ldm_data::{Batch, Dataset, Example, Loader, LoaderConfig, Peek, TransformConfig, open_path};
use ldm_train::RunConfig;

use crate::args::{DataArgs, MeasureArgs};

/// Of the order of pictures, always the same.
const SEED: u64 = 0;

/// The set that was named; of a config what is held back, where anything is.
pub(super) fn open(args: &DataArgs) -> anyhow::Result<Arc<dyn Dataset>> {
    let path = &args.dataset;
    if path.extension().is_some_and(|extension| extension == "yaml" || extension == "yml") {
        if args.size.is_some() {
            bail!("--size: {} says how large its pictures are", path.display());
        }
        let config = RunConfig::read(path, &[])?;
        let held_back = config.data.validation.as_ref().unwrap_or(&config.data.train);
        return Ok(held_back.open(path.parent().unwrap_or(Path::new(".")))?);
    }
    Ok(open_path(path, transform(args.size))?)
}

/// Made pictures, without what lies beside them in an output folder of ours.
pub(super) fn open_made(path: &Path, size: Option<u32>) -> anyhow::Result<Arc<dyn Dataset>> {
    let data = open_path(path, transform(size))?;
    let beside = |index: &usize| {
        data.peek(*index)
            .is_ok_and(|peek| peek.name.starts_with("grid.") || peek.name.starts_with("previews/"))
    };
    let indices: Vec<usize> = (0..data.len()).filter(|index| !beside(index)).collect();
    if indices.is_empty() {
        bail!("{}: no made picture", path.display());
    }
    Ok(Arc::new(Chosen { data, indices }))
}

fn transform(size: Option<u32>) -> TransformConfig {
    size.map_or_else(TransformConfig::default, TransformConfig::square)
}

/// Batches of the first pictures of a fixed shuffle, and how many pictures they have.
pub(super) fn batches(
    data: &Arc<dyn Dataset>,
    how: &MeasureArgs,
    strict: bool,
) -> anyhow::Result<(usize, impl Iterator<Item = Result<Batch>>)> {
    if how.batch_size == 0 || how.num_images == Some(0) {
        bail!("--num-images and --batch-size: expected at least 1");
    }
    let count = how.num_images.unwrap_or(data.len());
    if count > data.len() {
        bail!("--num-images: {} has {} pictures, {count} are asked for", data.name(), data.len());
    }
    let config =
        LoaderConfig { workers: 1, strict, drop_last: false, ..LoaderConfig::new(how.batch_size, SEED) };
    let mut left = count as i64;
    let batches = Loader::one_pass(Arc::clone(data), config)?.map_while(move |batch| {
        let batch = match batch {
            Ok(batch) => batch,
            error => return Some(error),
        };
        let taken = left.min(batch.images.size()[0]);
        left -= taken;
        (taken > 0).then(|| Ok(Batch { images: batch.images.narrow(0, 0, taken), ..batch }))
    });
    Ok((count, batches))
}

/// Some pictures of a set.
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
