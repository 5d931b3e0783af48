//! Evaluation of image sets: [`reconstruction`]s of a first stage, generated images against real ones, [`clip_score`].

mod clip_score;
mod extremes;
mod generation;
mod generation_table;
mod generator;
mod image_set;
mod reconstruction;
mod reference;

pub use clip_score::{ClipScoreEvaluation, clip_score};
pub use extremes::{Extremes, NamedValue};
pub use generation::{GenerationEvaluation, GenerationEvaluator, NearestReal, SpreadOfParts};
pub use generation_table::generation_table;
pub use generator::{GeneratedImages, ImageGenerator};
pub use image_set::{ImageSource, SetOptions, open_generated};
pub(crate) use image_set::{is_config, warn_of_left_out};
pub use reconstruction::{ReconstructionEvaluation, reconstruction};
pub use reference::ReferenceSet;
