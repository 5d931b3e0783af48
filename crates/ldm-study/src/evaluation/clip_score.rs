//! The CLIP score: similarity of generated images and their prompts (Hessel et al. 2021).

use std::path::Path;

use ldm_conditioning::Clip;
use ldm_core::{Error, PngTexts, Prompt, Result, text};
use ldm_data::{collate, none_readable, refuse_passed_over};
use ldm_libtorch::tf32_scope;
use ldm_metrics::MeanStd;
use serde::Serialize;
use tch::Kind;

use super::image_set::{open_generated, warn_of_left_out};
use crate::context::bail;
use crate::{Reporter, Spread};

/// The CLIP score of a set of images.
#[derive(Debug, Serialize)]
pub struct ClipScoreEvaluation {
    /// The name of the set.
    pub made: String,
    /// The number of images.
    pub made_images: usize,
    /// Errors of the images that could not be read and are left out.
    pub made_unreadable: Vec<String>,
    /// The fingerprint of the set.
    pub made_fingerprint: String,
    /// The score.
    pub clip_score: Spread,
}

/// Scores the generated images at `path` by `clip`, without TF32. Their prompts are the lines of `prompts`, in the order of the
/// names, or else the `parameters` in each PNG.
///
/// # Errors
/// When prompts cannot be read, or are not one per image; when no image can be read, or with `strict` any cannot.
pub fn clip_score(
    clip: &Clip,
    path: &Path,
    prompts: Option<&Path>,
    batch_size: usize,
    strict: bool,
    reporter: &dyn Reporter,
) -> Result<ClipScoreEvaluation> {
    // As CLIP's own preparation: the smaller side resized by PIL's bicubic, the center cropped.
    let data = open_generated(path, Some(clip.side() as u32))?;
    if strict {
        refuse_passed_over(&*data)?;
    }
    let prompts = prompts.map(|file| read_prompts(file, data.len())).transpose()?;
    let prompt = |index: usize| -> Result<String> {
        match &prompts {
            Some(prompts) => Ok(prompts[index].clone()),
            None => own_prompt(&path.join(data.peek(index)?.name)),
        }
    };
    let _full = tf32_scope(false);
    let mut unreadable = Vec::new();
    let mut score = MeanStd::new();
    reporter.progress(0, data.len() as u64);
    let indices: Vec<usize> = (0..data.len()).collect();
    for some in indices.chunks(batch_size) {
        let (mut examples, mut given) = (Vec::new(), Vec::new());
        for &index in some {
            match data.get(index, 0) {
                Ok(example) => {
                    examples.push(example);
                    given.push(prompt(index)?);
                }
                Err(error) if strict => return Err(error),
                Err(error) => unreadable.push(error.to_string()),
            }
        }
        if examples.is_empty() {
            continue;
        }
        let given = Prompt::text(given);
        for cut in clip.cut(&given).into_iter().flatten() {
            reporter.warn(&format!("a prompt is longer than CLIP reads, left out: {cut}"));
        }
        let images = clip.images(&collate(examples)?.images)?;
        let texts = clip.texts(&given)?;
        score.add(&((texts * images).sum_dim_intlist([1_i64].as_slice(), false, Kind::Float) * 100.));
        reporter.progress(score.count() as u64, data.len() as u64);
    }
    reporter.progress_end();
    if score.count() == 0 {
        return Err(none_readable(&*data, unreadable.first().map(String::as_str)));
    }
    warn_of_left_out(&*data, &unreadable, reporter);
    Ok(ClipScoreEvaluation {
        made: data.name(),
        made_images: score.count(),
        made_unreadable: unreadable,
        made_fingerprint: data.fingerprint(),
        clip_score: (&score).into(),
    })
}

impl ClipScoreEvaluation {
    /// Returns the lines of the table; `clip` names the model.
    pub fn table(&self, clip: &str) -> Vec<String> {
        let heading = format!("{} generated images ({}), by {clip}", self.made_images, self.made);
        let Spread { mean, std } = self.clip_score;
        let deviation = if std.is_nan() { String::new() } else { format!(" +- {std:.4}") };
        vec![heading, format!("{:<24} {mean:.4}{deviation}", "clip_score")]
    }
}

/// Returns the lines of a file, one per image.
fn read_prompts(path: &Path, images: usize) -> Result<Vec<String>> {
    let text = text::read(path)?;
    let prompts: Vec<String> = text.lines().map(|line| line.trim().to_owned()).collect();
    if prompts.len() != images {
        bail!("{}: expected {images} lines, one per image, got {}", path.display(), prompts.len());
    }
    Ok(prompts)
}

/// Returns the prompt in an image's `parameters`: the lines before the negative prompt and the sampling parameters.
fn own_prompt(path: &Path) -> Result<String> {
    let missing = || format!("{}: expected a prompt in its PNG text; try --prompts-from", path.display());
    let texts = PngTexts::read(path).map_err(|_| Error::invalid(missing()))?.texts;
    let lines = texts.get("parameters").map_or("", String::as_str);
    let lines = lines
        .lines()
        .take_while(|line| !["Negative prompt: ", "Steps: "].iter().any(|word| line.starts_with(word)));
    let prompt = lines.collect::<Vec<_>>().join("\n");
    if prompt.is_empty() {
        bail!("{}", missing());
    }
    Ok(prompt)
}
