//! ControlNets and hint images from files.

use std::fmt::Display;
use std::path::{Path, PathBuf};

use image::RgbImage;
use ldm_core::{Error, Result, image as images};
use ldm_data::{Interpolation, resize};
use ldm_pipelines::{Control, ControlNetModel, LatentDiffusion};
use tch::Tensor;

/// Reads a hint image, which is used as it is, without a preprocessor. Returns it at any size: stretched by PIL's Lanczos,
/// as diffusers does.
///
/// # Shapes
/// - the function returns `[1, 3, H, W]` in `[0, 1]` for a size `[H, W]`
///
/// # Errors
/// [`Error::Io`] and [`Error::Format`] when it cannot be read.
pub fn read_hint(path: &Path) -> Result<impl Fn([i64; 2]) -> Result<Tensor> + use<>> {
    let image = images::read(path)?;
    Ok(move |size| Ok(stretched(&image, size)))
}

fn stretched(image: &RgbImage, [height, width]: [i64; 2]) -> Tensor {
    let image = resize(image, width as u32, height as u32, Interpolation::Lanczos);
    (images::from_rgb8(&image).unsqueeze(0) + 1.) / 2.
}

/// ControlNets with a hint image each, by path. The other lists have one value per ControlNet, or none.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct ControlFiles {
    /// See [`ControlNetModel::open`].
    pub networks: Vec<PathBuf>,
    /// The hint images.
    pub images: Vec<PathBuf>,
    /// See [`Control::scale`].
    pub scales: Vec<f64>,
    /// See [`Control::interval`].
    pub starts: Vec<f64>,
    /// See [`Control::interval`].
    pub ends: Vec<f64>,
}

impl ControlFiles {
    /// Checks the numbers of values, and that the hint images can be read.
    ///
    /// # Errors
    /// [`Error::Invalid`] for numbers that differ; as [`read_hint`].
    pub fn check(&self) -> Result<()> {
        let count = self.networks.len();
        for (name, given, optional) in [
            ("control images", self.images.len(), false),
            ("control scales", self.scales.len(), true),
            ("control starts", self.starts.len(), true),
            ("control ends", self.ends.len(), true),
        ] {
            if given != count && !(optional && given == 0) {
                return Err(Error::expected(name, format!("{count}, one for each ControlNet"), given));
            }
        }
        self.images.iter().try_for_each(|path| images::read(path).map(drop))
    }

    /// Opens the ControlNets for `model`, and reads the hint images.
    ///
    /// # Errors
    /// As [`ControlFiles::check`] and [`ControlNetModel::open`].
    pub fn open(&self, model: &LatentDiffusion) -> Result<OpenControls> {
        self.check()?;
        let each = self.networks.iter().zip(&self.images).enumerate().map(|(index, (network, image))| {
            let at = |values: &[f64], default: f64| values.get(index).copied().unwrap_or(default);
            Ok(OpenControl {
                net: ControlNetModel::open(network, model)?,
                image: images::read(image)?,
                image_name: image.file_name().unwrap_or_default().to_string_lossy().into_owned(),
                scale: at(&self.scales, 1.),
                interval: [at(&self.starts, 0.), at(&self.ends, 1.)],
            })
        });
        each.collect::<Result<_>>().map(OpenControls)
    }
}

/// Opened [`ControlFiles`].
#[derive(Debug)]
pub struct OpenControls(Vec<OpenControl>);

#[derive(Debug)]
struct OpenControl {
    net: ControlNetModel,
    image: RgbImage,
    image_name: String,
    scale: f64,
    interval: [f64; 2],
}

impl OpenControls {
    /// Returns the controls of a request.
    pub fn controls(&self) -> Vec<Control<'_>> {
        self.0.iter().map(OpenControl::control).collect()
    }
}

impl OpenControl {
    fn control(&self) -> Control<'_> {
        let [start, end] = self.interval;
        let control = Control::new(&self.net, |size| Ok(stretched(&self.image, size)));
        control.scale(self.scale).interval(start, end).image_name(&self.image_name)
    }
}

/// Writes the entry of a control in `parameters`, quoted as AUTOMATIC1111 quotes values that contain commas.
pub(crate) fn entry(index: usize, control: impl Display) -> String {
    format!(", ControlNet {index}: {}", serde_json::Value::from(control.to_string()))
}
