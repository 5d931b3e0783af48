//! Embedding images into a database.

use std::path::Path;
use std::sync::Arc;

use ldm_conditioning::Clip;
use ldm_core::{Result, files};
use ldm_data::{
    Dataset, DatasetConfig, Example, TransformConfig, collate, none_readable, open_path, refuse_passed_over,
};
use ldm_retrieval::{EmbeddingIndex, IndexWriter, add_compvis_file, compvis_files};
use ldm_train::DataModule;

use crate::Reporter;
use crate::context::bail;
use crate::evaluation::{is_config, warn_of_left_out};

/// Options of [`index_images`].
#[derive(Debug, Clone, Copy)]
pub struct IndexOptions {
    /// Images per batch.
    pub batch_size: usize,
    /// Partition the database.
    pub partition: bool,
    /// Fail on an unreadable image.
    pub strict: bool,
}

/// Writes a database of the embeddings of images: a folder, an archive, a pattern of shards or the training set of a config,
/// by `clip`; or converts a database of CompVis, which needs none. Only one batch of images is in memory.
///
/// The smaller side of an image is resized to that of CLIP by PIL's bicubic, and its center cropped, as in CLIP's own
/// preparation. CompVis' `FrozenClipImageEmbedder` gets square patches, and resizes without antialiasing; for images of
/// CLIP's size both are the same.
///
/// # Errors
/// When images or files cannot be read or written, or `clip` is missing.
pub fn index_images(
    images: &Path,
    clip: Option<&Clip>,
    options: IndexOptions,
    out: &Path,
    reporter: &dyn Reporter,
) -> Result<EmbeddingIndex> {
    let mut writer = IndexWriter::new(out)?;
    if let Some(files) = compvis_files(images) {
        for (done, file) in (1..).zip(&files) {
            add_compvis_file(&mut writer, file)?;
            reporter.progress(done, files.len() as u64);
        }
        reporter.progress_end();
        return writer.finish(None, options.partition);
    }
    let Some(clip) = clip else { bail!("--clip: expected a CLIP model for images, got none") };
    let data = open(images, clip.side() as u32)?;
    if options.strict {
        refuse_passed_over(&*data)?;
    }
    let mut unreadable = Vec::new();
    let mut examples: Vec<Example> = Vec::new();
    for index in 0..data.len() {
        files::stopping()?;
        match data.get(index, 0) {
            Ok(example) => examples.push(example),
            Err(error) if options.strict => return Err(error),
            Err(error) => unreadable.push(error.to_string()),
        }
        if examples.len() == options.batch_size || index + 1 == data.len() && !examples.is_empty() {
            let batch = collate(std::mem::take(&mut examples))?;
            writer.push(&clip.images(&batch.images)?, &batch.names)?;
            reporter.progress(index as u64 + 1, data.len() as u64);
        }
    }
    reporter.progress_end();
    if writer.is_empty() {
        return Err(none_readable(&*data, unreadable.first().map(String::as_str)));
    }
    warn_of_left_out(&*data, &unreadable, reporter);
    writer.finish(Some(&clip.fingerprint()), options.partition)
}

/// Opens images, or the training set of a config, prepared for CLIP.
fn open(images: &Path, side: u32) -> Result<Arc<dyn Dataset>> {
    if !is_config(images) {
        return open_path(images, TransformConfig::square(side));
    }
    let mut config = DataModule::read(images)?.train;
    match &mut config {
        DatasetConfig::Scenes(scenes) => scenes.size = side,
        DatasetConfig::Images(stored) => {
            stored.transform = TransformConfig::square(side);
            stored.alpha = false;
            stored.task = None;
            stored.neighbors = None; // the file of which this database is made may not exist yet
        }
    }
    config.open(images.parent().unwrap_or(Path::new(".")))
}
