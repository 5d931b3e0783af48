//! Evaluation of image sets: [`reconstruction`]s of a first stage, generated images against real ones, [`paired`] with their
//! originals, or with their prompts ([`clip_score`]); and the [`rate_distortion`] of a diffusion model.

mod clip_score;
mod extremes;
mod generation;
mod generator;
mod image_set;
mod paired;
mod rate_distortion;
mod rate_plot;
mod reconstruction;
mod reference;

pub use clip_score::{ClipScoreEvaluation, clip_score};
pub use extremes::{Extremes, NamedValue};
pub use generation::{
    GenerationEvaluation, GenerationEvaluator, NearestReal, SpreadOfParts, generation_table,
};
pub use generator::{GeneratedImages, ImageGenerator};
pub use image_set::{ImageSource, SetOptions, open_generated};
pub(crate) use image_set::{is_config, warn_of_left_out};
pub use paired::{PairedEvaluation, paired};
pub use rate_distortion::{RateDistortion, RateOptions, RatePoint, rate_distortion};
pub use reconstruction::{ReconstructionEvaluation, reconstruction};
pub use reference::ReferenceSet;
