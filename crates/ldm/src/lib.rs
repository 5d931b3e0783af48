//! Latent diffusion models: open a model, generate images, save them.
//!
//! [`Pipeline::open`] loads a model, [`Pipeline::generate`] samples a [`Request`], and [`Images::save`] writes PNGs
//! with the same `parameters` text as the command line. Everything a request leaves open is the model's own default.
//!
//! The crates below are re-exported under their names without the prefix.

mod controls;
mod embedded;
mod hires;
mod image_grid;
mod images;
mod inpainting;
mod input_file;
mod input_images;
mod input_size;
mod layout_file;
mod mask_file;
mod named_classifier;
mod npz_images;
mod parameters;
mod pipeline;
mod png_parameters;
mod previews;
mod prompts_file;
mod redo;
mod request;
mod safety;
mod semantic_map;
mod watermark;
mod web_ui;

pub use ldm_autoencoder as autoencoder;
pub use ldm_checkpoint as checkpoint;
pub use ldm_conditioning as conditioning;
pub use ldm_core as core;
pub use ldm_data as data;
pub use ldm_libtorch as libtorch;
pub use ldm_metrics as metrics;
pub use ldm_pipelines as pipelines;
pub use ldm_retrieval as retrieval;
pub use ldm_schedulers as schedulers;
pub use ldm_train as train;
pub use ldm_unet as unet;
pub use tch;

pub use controls::{ControlFiles, OpenControls, read_hint};
pub use embedded::{EMBEDDED_MODEL, model_path};
pub use hires::Hires;
pub use image_grid::ImageGrid;
pub use images::{Images, read_image};
pub use inpainting::{Inpainting, extended};
pub use input_file::input_fields;
pub use input_images::InputImages;
pub use input_size::InputSize;
pub use layout_file::{Layout, read_layouts};
pub use ldm_core::{Error, Result};
pub use mask_file::MaskFile;
pub use named_classifier::{NamedClassifier, parse_class};
pub use npz_images::NpzImages;
pub use parameters::Parameters;
pub use pipeline::Pipeline;
pub use png_parameters::PngParameters;
pub use previews::Previews;
pub use prompts_file::read_prompts;
pub use redo::Redo;
pub use request::Request;
pub use safety::{SafetyFilter, SafetyMode};
pub use semantic_map::{one_hot_labels, read_labels};
pub use watermark::Watermark;

/// The names that most programs use.
pub mod prelude {
    pub use crate::{Hires, Images, Pipeline, Request, Watermark, read_hint, read_image};
    pub use ldm_conditioning::{EmbeddingFile, PromptSyntax};
    pub use ldm_core::{LayoutBox, Prompt, Result};
    pub use ldm_data::{Dataset, Example};
    pub use ldm_pipelines::{Control, ControlNetModel, LoadOptions, TileSize};
    pub use ldm_schedulers::{SamplerConfig, Spacing};
    pub use ldm_train::{TrainConfig, Trainer};
    pub use tch::{Device, Kind, Tensor};
}

/// The programs of the README files and of the guide.
#[cfg(doctest)]
mod doctests {
    #[doc = include_str!("../README.md")]
    struct Readme;
    #[doc = include_str!("../../../README.md")]
    struct WorkspaceReadme;
    #[doc = include_str!("../../../docs/guide/configs.md")]
    struct ConfigsGuide;
    #[doc = include_str!("../../../docs/guide/controlnet.md")]
    struct ControlNetGuide;
    #[doc = include_str!("../../../docs/guide/data.md")]
    struct DataGuide;
    #[doc = include_str!("../../../docs/guide/install.md")]
    struct InstallGuide;
    #[doc = include_str!("../../../docs/guide/lora.md")]
    struct LoraGuide;
    #[doc = include_str!("../../../docs/guide/metrics.md")]
    struct MetricsGuide;
    #[doc = include_str!("../../../docs/guide/performance.md")]
    struct PerformanceGuide;
    #[doc = include_str!("../../../docs/guide/retrieval.md")]
    struct RetrievalGuide;
    #[doc = include_str!("../../../docs/guide/rust.md")]
    struct RustGuide;
    #[doc = include_str!("../../../docs/start/rust.md")]
    struct RustStart;
    #[doc = include_str!("../../../docs/guide/samplers.md")]
    struct SamplersGuide;
    #[doc = include_str!("../../../docs/guide/sampling.md")]
    struct SamplingGuide;
    #[doc = include_str!("../../../docs/guide/study-of-f.md")]
    struct StudyOfFGuide;
    #[doc = include_str!("../../../docs/guide/training.md")]
    struct TrainingGuide;
    #[doc = include_str!("../../../docs/guide/weights.md")]
    struct WeightsGuide;
}
