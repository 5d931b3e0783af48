//! The models of a server: their names, what a client may know of them, and those in memory.

use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use ldm::{Pipeline, model_path};
use ldm_conditioning::EmbeddingFile;
use ldm_pipelines::lora::LoraFile;
use ldm_pipelines::{ConditioningKind, LatentRgb, LoadOptions};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::options::ServeOptions;
use crate::request::LoraRequest;
use crate::{ErrorKind, ServeError};

/// A model as a client sees it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct ModelInfo {
    /// The name, under the key of OpenAI's API.
    pub id: String,
    /// `model`, as there.
    pub object: String,
    /// Seconds since 1970, as there; 0, since it is not known.
    pub created: u64,
    /// `ldm`, as there.
    pub owned_by: String,
    /// The name in requests.
    pub name: String,
    /// The file or folder.
    pub path: String,
    /// The kind of its condition.
    pub conditioning: ConditionedOn,
    /// Height of its images where a request names none.
    pub height: i64,
    /// Width likewise.
    pub width: i64,
    /// Heights and widths are multiples of it.
    pub multiple: i64,
    /// The number of steps where a request names none.
    pub steps: usize,
    /// The guidance scale likewise.
    pub guidance_scale: f64,
    /// The sampler likewise.
    pub sampler: String,
    /// The number of classes, or of labels of a map.
    pub classes: Option<i64>,
    /// Names of the classes, of the labels of a map, or of the classes of boxes; may be empty.
    pub class_names: Vec<String>,
    /// The number of parameters.
    pub parameters: u64,
    /// The dtype of the weights.
    pub dtype: String,
    /// True where the prompt may have weights, learned words and a clip skip: through CLIP.
    pub clip: bool,
}

/// The kind of a model's condition.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum ConditionedOn {
    /// Nothing.
    None,
    /// A class.
    Class,
    /// A text.
    Text,
    /// Labeled boxes.
    Layout,
    /// A low-resolution image.
    LowResolution,
    /// A label map.
    LabelMap,
    /// An image and a mask.
    Inpainting,
    /// An image, a mask and a text.
    TextInpainting,
}

impl ConditionedOn {
    /// True for models that read a prompt.
    pub(crate) fn has_text(self) -> bool {
        matches!(self, Self::Text | Self::TextInpainting)
    }

    /// True for models that start from an initial image, where there is one.
    pub(crate) fn starts_from_image(self) -> bool {
        matches!(self, Self::None | Self::Class | Self::Text | Self::Layout)
    }
}

/// The models that a server may open.
#[derive(Debug)]
pub(crate) struct Models {
    sources: Vec<NamedModel>,
    infos: Vec<ModelInfo>,
    loras: Vec<(String, PathBuf)>,
    embeddings: Vec<EmbeddingFile>,
    /// The words of the embeddings.
    words: Vec<String>,
    /// The model of requests that name none.
    default: Mutex<String>,
    load: LoadOptions,
    kept: usize,
}

#[derive(Debug)]
struct NamedModel {
    name: String,
    path: PathBuf,
}

/// A model in memory.
#[derive(Debug)]
pub(crate) struct Loaded {
    name: String,
    loras: Vec<LoraRequest>,
    pub(crate) pipeline: Pipeline,
    /// None for first stages without pixels.
    pub(crate) colors: Option<LatentRgb>,
    /// Seconds of a step of an image, by the last batch.
    pub(crate) seconds_per_step: Option<f64>,
}

/// The models in memory, of which the worker alone has any; the one used last is the last.
#[derive(Debug, Default)]
pub(crate) struct ModelCache(Vec<Loaded>);

impl Models {
    /// Opens each model once, so that a wrong file is known at the start.
    ///
    /// # Errors
    /// As [`Pipeline::open_with`]; [`ErrorKind::Invalid`] without models, and for two of one name.
    pub(crate) fn open(options: &ServeOptions) -> Result<(Self, ModelCache), ServeError> {
        let sources =
            options.models.iter().map(|given| NamedModel::parse(given)).collect::<Result<Vec<_>, _>>()?;
        let Some(first) = sources.first() else {
            return Err(ServeError::new(ErrorKind::Invalid, "expected at least one model, got none"));
        };
        for (index, source) in sources.iter().enumerate() {
            if sources[..index].iter().any(|other| other.name == source.name) {
                let message = format!("two models are named {}; try NAME=PATH", source.name);
                return Err(ServeError::new(ErrorKind::Invalid, message));
            }
        }
        let default = Mutex::new(first.name.clone());
        let load = LoadOptions { kind: options.kind, ..LoadOptions::new(options.device) };
        let loras = options.loras.as_deref().map(weight_files).transpose()?.unwrap_or_default();
        let embeddings = options.embeddings.as_deref().map(weight_files).transpose()?.unwrap_or_default();
        let embeddings: Vec<_> =
            embeddings.iter().map(|(_, path)| EmbeddingFile::from(path.as_path())).collect();
        let words =
            embeddings.iter().map(|file| Ok(file.read()?.token)).collect::<Result<_, ServeError>>()?;
        let kept = options.loaded_models.max(1);
        let mut models = Self { sources, infos: Vec::new(), loras, embeddings, words, default, load, kept };
        let mut cache = ModelCache::default();
        for index in (0..models.sources.len()).rev() {
            let name = models.sources[index].name.clone();
            let loaded = models.load(&name, &[])?;
            models.infos.insert(0, describe(&loaded, &models.sources[index].path)?);
            cache.insert(loaded, kept);
        }
        Ok((models, cache))
    }

    /// Every model.
    pub(crate) fn infos(&self) -> &[ModelInfo] {
        &self.infos
    }

    /// The model of a request.
    ///
    /// # Errors
    /// [`ErrorKind::NotFound`] with the known names.
    pub(crate) fn find(&self, name: Option<&str>) -> Result<&ModelInfo, ServeError> {
        let default = self.default();
        let name = name.unwrap_or(&default);
        self.infos.iter().find(|info| info.name == name).ok_or_else(|| {
            let known: Vec<_> = self.infos.iter().map(|info| info.name.as_str()).collect();
            ServeError {
                kind: ErrorKind::NotFound,
                message: format!("model: expected one of {}, got {name}", known.join(", ")),
                field: Some("model".to_owned()),
            }
        })
    }

    /// The name of the model of requests that name none.
    pub(crate) fn default(&self) -> String {
        self.default.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Makes a model that of requests that name none.
    ///
    /// # Errors
    /// As [`find`](Self::find).
    pub(crate) fn set_default(&self, name: &str) -> Result<(), ServeError> {
        let name = self.find(Some(name))?.name.clone();
        *self.default.lock().unwrap_or_else(PoisonError::into_inner) = name;
        Ok(())
    }

    /// Names and files of the LoRAs.
    pub(crate) fn loras(&self) -> &[(String, PathBuf)] {
        &self.loras
    }

    /// Learned words.
    pub(crate) fn words(&self) -> &[String] {
        &self.words
    }

    /// The model of a name with its LoRAs, from the cache or the disk.
    ///
    /// # Errors
    /// As [`Pipeline::open_with`] and [`Pipeline::merge`].
    pub(crate) fn get<'a>(
        &self,
        cache: &'a mut ModelCache,
        name: Option<&str>,
        loras: &[LoraRequest],
    ) -> Result<&'a mut Loaded, ServeError> {
        let name = self.find(name)?.name.clone();
        let found = cache.0.iter().position(|loaded| loaded.name == name && loaded.loras == loras);
        let loaded = if let Some(index) = found {
            cache.0.remove(index)
        } else {
            // Room first: two models may not fit.
            cache.shrink(self.kept - 1);
            self.load(&name, loras)?
        };
        Ok(cache.insert(loaded, self.kept))
    }

    fn load(&self, name: &str, loras: &[LoraRequest]) -> Result<Loaded, ServeError> {
        let source = self.sources.iter().find(|source| source.name == name).expect("a known model");
        let files = loras.iter().map(|lora| self.lora(lora)).collect::<Result<Vec<_>, _>>()?;
        let mut pipeline = Pipeline::open_with(&source.path, &self.load)?.named(name);
        for note in pipeline.notes() {
            tracing::warn!(model = name, "{note}");
        }
        if pipeline.model().config.clip() {
            for file in &self.embeddings {
                pipeline.add_embedding(file)?;
            }
        }
        pipeline.merge(&files)?;
        pipeline.model().to_channels_last();
        let colors = LatentRgb::fit(pipeline.model()).ok();
        tracing::info!(model = name, loras = loras.len(), "loaded");
        Ok(Loaded { name: name.to_owned(), loras: loras.to_vec(), pipeline, colors, seconds_per_step: None })
    }

    fn lora(&self, lora: &LoraRequest) -> Result<LoraFile, ServeError> {
        let found = self.loras.iter().find(|(name, _)| *name == lora.name);
        let path = found.map(|(_, path)| path.clone()).ok_or_else(|| {
            let known: Vec<_> = self.loras.iter().map(|(name, _)| name.as_str()).collect();
            let known = if known.is_empty() { "none".to_owned() } else { known.join(", ") };
            ServeError::invalid(
                "loras",
                format!("expected names of the server's ({known}), got {}", lora.name),
            )
        })?;
        Ok(LoraFile { path, strength: lora.weight })
    }

    /// Checks that a LoRA is known.
    ///
    /// # Errors
    /// [`ErrorKind::Invalid`] with the known names.
    pub(crate) fn check_lora(&self, lora: &LoraRequest) -> Result<(), ServeError> {
        self.lora(lora).map(|_| ())
    }
}

/// Returns the description of a model for clients.
fn describe(loaded: &Loaded, path: &Path) -> Result<ModelInfo, ServeError> {
    let model = loaded.pipeline.model();
    let config = &model.config;
    let conditioning = match ConditioningKind::of(config) {
        ConditioningKind::Unconditional => ConditionedOn::None,
        ConditioningKind::Class => ConditionedOn::Class,
        ConditioningKind::Text => ConditionedOn::Text,
        ConditioningKind::Layout => ConditionedOn::Layout,
        ConditioningKind::LowResolution => ConditionedOn::LowResolution,
        ConditioningKind::SemanticMap => ConditionedOn::LabelMap,
        ConditioningKind::Inpainting => ConditionedOn::Inpainting,
        ConditioningKind::TextInpainting => ConditionedOn::TextInpainting,
        other => {
            let message = format!("{}: models conditioned on {other} are not served", path.display());
            return Err(ServeError::new(ErrorKind::Invalid, message));
        }
    };
    let (classes, class_names) = match conditioning {
        ConditionedOn::LabelMap => (config.map_classes(), &model.label_classes),
        ConditionedOn::Layout => (None, &model.box_classes),
        _ => (config.classes(), &model.classes),
    };
    let sampling = model.default_sampling();
    let side = config.image_size * model.first_stage.factor();
    Ok(ModelInfo {
        id: loaded.name.clone(),
        object: "model".to_owned(),
        created: 0,
        owned_by: "ldm".to_owned(),
        name: loaded.name.clone(),
        path: path.display().to_string(),
        conditioning,
        height: side,
        width: side,
        multiple: model.first_stage.factor() * model.unet.factor(),
        steps: sampling.steps,
        guidance_scale: sampling.guidance.scale,
        sampler: sampling.sampler.name().to_owned(),
        classes,
        class_names: class_names.clone(),
        parameters: model.vs().variables().values().map(|tensor| tensor.numel() as u64).sum(),
        dtype: ldm_core::device::dtype_name(model.kind()),
        clip: config.clip(),
    })
}

impl NamedModel {
    /// `PATH` or `NAME=PATH`; the name of a path is its last part.
    fn parse(given: &str) -> Result<Self, ServeError> {
        let named = given.split_once('=').filter(|(name, _)| !name.is_empty() && !name.contains('/'));
        let (name, path) = named.map_or((None, given), |(name, path)| (Some(name.to_owned()), path));
        let path = model_path(PathBuf::from(path))?;
        let name = name.unwrap_or_else(|| {
            let stem = if path.is_dir() { path.file_name() } else { path.file_stem() };
            stem.unwrap_or_default().to_string_lossy().into_owned()
        });
        Ok(Self { name, path })
    }
}

impl ModelCache {
    fn insert(&mut self, loaded: Loaded, kept: usize) -> &mut Loaded {
        self.shrink(kept - 1);
        self.0.push(loaded);
        self.0.last_mut().expect("just added")
    }

    /// Frees those used longest ago.
    fn shrink(&mut self, kept: usize) {
        let free = self.0.len().saturating_sub(kept);
        self.0.drain(..free);
    }

    /// Frees all.
    pub(crate) fn clear(&mut self) {
        self.0.clear();
    }
}

/// The weight files of a folder with their names without extension, sorted.
fn weight_files(folder: &Path) -> Result<Vec<(String, PathBuf)>, ServeError> {
    let at = |error| ldm_core::Error::io(folder)(error);
    let mut found = Vec::new();
    for entry in std::fs::read_dir(folder).map_err(at)? {
        let path = entry.map_err(at)?.path();
        let extension = path.extension().unwrap_or_default().to_string_lossy().to_lowercase();
        if path.is_file() && ["safetensors", "pt", "bin", "ckpt"].contains(&extension.as_str()) {
            found.push((path.file_stem().unwrap_or_default().to_string_lossy().into_owned(), path));
        }
    }
    found.sort();
    Ok(found)
}
