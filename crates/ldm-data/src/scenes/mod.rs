//! Synthetic scenes: an endless, built-in dataset of shapes, each with class, caption, boxes and label map.
//!
//! Every scene is a function of `(seed, split, index)`, and looks the same at any size. With `objects: [1, 1]` it is
//! a class-conditional dataset whose ten classes are distinguishable at 32 pixels.

mod caption;
mod draw;
mod outline;
mod paint;
mod scene;
mod words;

use image::RgbImage;
use serde::{Deserialize, Serialize};

use ldm_core::noise::splitmix_finalizer;
use ldm_core::{Error, Result};

pub use caption::{ObjectWords, SceneWords, parse};
pub use draw::Drawing;
pub use scene::{Background, Object, Scene};
pub use words::{Color, Fill, Ground, Place, Shape, Size, Texture};

use crate::dataset::{Dataset, Peek, fingerprint};
use crate::example::{Example, to_chw};
use crate::rng::Rng;
use crate::task::{CheckedTask, TaskConfig};

/// Configuration of synthetic scenes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct SceneConfig {
    /// Side in pixels, 16 to 1024.
    pub size: u32,
    /// Least and largest number of objects, 1 to 4.
    pub objects: [usize; 2],
    /// Size of the smallest object. The main object is larger than the others, so that `large` is for single objects.
    pub smallest: Size,
    /// Number of scenes of an epoch.
    pub count: usize,
    /// Seed of the scenes.
    pub seed: u64,
    /// Split; no scene is in both.
    pub split: Split,
    /// Condition made of each scene in addition to its labels.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub task: Option<TaskConfig>,
}

/// Splits of the scenes of a seed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Split {
    /// Scenes for training.
    Train,
    /// Scenes for validation.
    Validation,
}

impl Default for SceneConfig {
    fn default() -> Self {
        Self {
            size: 64,
            objects: [1, 3],
            smallest: Size::Small,
            count: 100_000,
            seed: 0,
            split: Split::Train,
            task: None,
        }
    }
}

/// The dataset of synthetic scenes.
#[derive(Debug)]
pub struct Scenes {
    config: SceneConfig,
    classes: Vec<String>,
    /// `background`, then the classes.
    labels: Vec<String>,
    task: Option<CheckedTask>,
}

impl Scenes {
    /// Checks the config and creates the dataset.
    ///
    /// # Errors
    /// [`Error::Invalid`] naming the invalid key.
    pub fn new(config: SceneConfig) -> Result<Self> {
        let [fewest, most] = config.objects;
        if !(16..=1024).contains(&config.size) {
            return Err(Error::invalid(format!(
                "scenes: size: expected 16 to 1024 pixels, got {}",
                config.size
            )));
        }
        if fewest < 1 || most > 4 || fewest > most {
            return Err(Error::invalid(format!(
                "scenes: objects: expected [least, largest] within 1 to 4, got [{fewest}, {most}]"
            )));
        }
        if config.smallest == Size::Large && most > 1 {
            return Err(Error::invalid(format!(
                "scenes: objects: expected [1, 1] with smallest: large, which leaves no smaller size for a second object, got [{fewest}, {most}]"
            )));
        }
        if config.count == 0 {
            return Err(Error::invalid("scenes: count: expected at least 1, got 0"));
        }
        let task = config.task.clone().map(|task| CheckedTask::new(task, Some(config.size))).transpose()?;
        if task.as_ref().is_some_and(CheckedTask::needs_files) {
            return Err(Error::invalid(
                "scenes: masks: expected masks that are drawn, got files, which are for stored images",
            ));
        }
        let classes: Vec<String> = Shape::ALL.iter().map(|shape| shape.word().to_owned()).collect();
        let labels = [vec!["background".to_owned()], classes.clone()].concat();
        Ok(Self { config, classes, labels, task })
    }

    /// Scene number `index`. Classes alternate, so that any ten consecutive scenes have each of the ten once.
    pub fn scene(&self, index: usize) -> Scene {
        let config = &self.config;
        // The split is a separate bit and the finalizer a bijection, so that the splits have different seeds.
        let split = u64::from(config.split == Split::Validation) << 63;
        let mut rng = Rng::of(&[config.seed, splitmix_finalizer(index as u64 | split)]);
        let [fewest, most] = config.objects;
        let count = fewest + rng.below((most - fewest + 1) as u64) as usize;
        Scene::random(&mut rng, Shape::ALL[index % Shape::ALL.len()], count, config.smallest)
    }

    fn example_name(index: usize) -> String {
        format!("scene-{index:08}")
    }
}

impl Dataset for Scenes {
    fn len(&self) -> usize {
        self.config.count
    }

    /// The seed decides the random choices of the task and does not change the scene.
    fn get(&self, index: usize, seed: u64) -> Result<Example> {
        assert!(index < self.len(), "scene {index} of {}", self.len());
        let scene = self.scene(index);
        let drawing = scene.draw(self.config.size);
        let side = self.config.size as usize;
        let condition = match &self.task {
            None => None,
            Some(task) => {
                let image = RgbImage::from_raw(drawing.side, drawing.side, drawing.pixels.clone());
                let image = image.expect("three bytes a pixel");
                let mut rng = Rng::of(&[seed, index as u64]);
                let made = task.make(&image, None, self.labels.len(), &mut rng);
                Some(made.map_err(|message| Error::data(Self::example_name(index), message))?)
            }
        };
        Ok(Example {
            image: to_chw(&drawing.pixels),
            size: [3, side, side],
            class: Some(scene.objects[0].shape as i64),
            caption: Some(scene.caption()),
            boxes: scene.boxes(),
            encode_crop: false,
            crop: [0., 0., 1., 1.],
            condition,
            label_map: Some(drawing.labels),
            latent: None,
            neighbors: None,
            name: Self::example_name(index),
        })
    }

    fn peek(&self, index: usize) -> Result<Peek> {
        let scene = self.scene(index);
        Ok(Peek {
            name: Self::example_name(index),
            size: [self.config.size; 2],
            class: Some(scene.objects[0].shape as i64),
            caption: Some(scene.caption()),
        })
    }

    fn classes(&self) -> &[String] {
        &self.classes
    }

    fn box_classes(&self) -> &[String] {
        &self.classes
    }

    fn label_classes(&self) -> &[String] {
        &self.labels
    }

    fn name(&self) -> String {
        "scenes".to_owned()
    }

    fn fingerprint(&self) -> String {
        fingerprint("scenes 1", &self.config, [])
    }
}
