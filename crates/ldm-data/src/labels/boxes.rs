//! Labeled boxes: annotations of COCO and OpenImages.

use std::collections::{BTreeMap, HashMap};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use serde_json::Value;

use ldm_core::{Error, LayoutBox, Result, text};

use crate::image::placement::{Placement, flipped};
use crate::labels::open_images;
use crate::rng::Rng;
use crate::source::data_paths::DataPaths;

/// Boxes from COCO's JSON or OpenImages' CSV. Images with too few or too many of them are left out of the dataset.
///
/// taming-transformers `data/annotated_objects_coco.py`. Its `crop_method` is the transform here: `none` is
/// `resize: exact`, `center` and `random-1d` are `crop: center` and `crop: random`, `random-2d` is
/// `resize: square_crop_first, crop: random_square`; its `random_flip` is `flip: 0.5`.
///
/// Classes are numbered by their ids, sorted as strings, without one called `other`. `iscrowd` changes nothing: the
/// reference compares the number with `True`, which it never is. The seed shuffles the boxes.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct BoxesConfig {
    /// A COCO JSON, or a list of them with the same images (things and stuff). Every image they name must exist. Or CSV
    /// files of OpenImages (`oidv6-train-annotations-bbox.csv`), of whose images some may be missing.
    #[serde(deserialize_with = "crate::source::one_or_many::one_or_many")]
    pub annotations: Vec<String>,
    /// Boxes of at most this share of the image are ignored.
    #[serde(default = "min_object_area")]
    pub min_object_area: f64,
    /// Least number of boxes of an image.
    #[serde(default = "min_objects")]
    pub min_objects_per_image: usize,
    /// Largest number of boxes of an image; a model of 92 tokens has room for 30.
    #[serde(default = "max_objects")]
    pub max_objects_per_image: usize,
    /// Keeps boxes relative to the whole image and adds the crop to the condition (`Prompt.crops`; two of a model's 92
    /// tokens). Otherwise boxes are relative to the crop.
    #[serde(default)]
    pub encode_crop: bool,
    /// Names of OpenImages' classes: `class-descriptions-boxable.csv`.
    #[serde(default)]
    pub class_descriptions: Option<PathBuf>,
    /// Names of OpenImages' classes to use; all where there are none. taming-transformers `category_allow_list_target`.
    #[serde(default)]
    pub category_allow_list: Vec<String>,
    /// Ids of OpenImages' classes that count as another. taming-transformers `category_mapping_target`.
    #[serde(default)]
    pub category_mapping: BTreeMap<String, String>,
}

fn min_object_area() -> f64 {
    1e-5
}

fn min_objects() -> usize {
    2
}

fn max_objects() -> usize {
    30
}

impl BoxesConfig {
    /// Creates the config of one file with CompVis' thresholds.
    pub fn new(annotations: impl Into<String>) -> Self {
        Self {
            annotations: vec![annotations.into()],
            min_object_area: min_object_area(),
            min_objects_per_image: min_objects(),
            max_objects_per_image: max_objects(),
            encode_crop: false,
            class_descriptions: None,
            category_allow_list: Vec::new(),
            category_mapping: BTreeMap::new(),
        }
    }
}

/// Boxes of images, by file name.
pub type BoxesByImage = BTreeMap<String, Vec<LayoutBox>>;

/// Reads a COCO file: the names of the classes, and the boxes of each image that has any.
///
/// # Errors
/// [`Error::Io`], [`Error::Format`] and [`Error::Data`] about the file.
pub fn read_boxes(path: impl AsRef<Path>) -> Result<(Vec<String>, BoxesByImage)> {
    let config = BoxesConfig {
        min_object_area: 0.,
        min_objects_per_image: 1,
        max_objects_per_image: usize::MAX,
        ..BoxesConfig::new(path.as_ref().to_string_lossy())
    };
    let Annotations { classes, boxes, .. } = Annotations::read(&config, &DataPaths::new(Path::new("")))?;
    Ok((classes, boxes))
}

/// Boxes of every image in the annotations of a dataset.
#[derive(Debug)]
pub(crate) struct Annotations {
    pub(crate) classes: Vec<String>,
    /// Boxes of each image with neither too few nor too many.
    pub(crate) boxes: BoxesByImage,
    /// Set where some images may be missing.
    pub(crate) is_part: bool,
}

impl Annotations {
    pub(crate) fn read(config: &BoxesConfig, paths: &DataPaths) -> Result<Self> {
        if config.min_objects_per_image > config.max_objects_per_image {
            return Err(Error::invalid(format!(
                "boxes: expected min_objects_per_image of at most max_objects_per_image, got {} and {}",
                config.min_objects_per_image, config.max_objects_per_image
            )));
        }
        if is_open_images(config)? {
            return open_images::read(config, paths);
        }
        let mut documents = Vec::new();
        for name in &config.annotations {
            let path = paths.resolve(name)?;
            let value: Value = text::read_json(&path)?;
            documents.push((path, value));
        }
        // As strings: "10" comes before "2".
        let mut categories = BTreeMap::new();
        for (path, document) in &documents {
            for each in list(document, "categories", path)? {
                let name = each["name"].as_str().ok_or_else(|| lacks(path, "a category", "name"))?;
                if name != "other" {
                    categories.insert(id(each, "id", "a category", path)?, name.to_owned());
                }
            }
        }
        let numbers: HashMap<&str, i64> = categories.keys().map(String::as_str).zip(0..).collect();
        let (path, first) = documents
            .first()
            .ok_or_else(|| Error::invalid("boxes.annotations: expected a file, got none"))?;
        let images = images(first, path)?;
        let mut boxes: BTreeMap<&str, Vec<LayoutBox>> = BTreeMap::new();
        for (path, document) in &documents {
            for each in list(document, "annotations", path)? {
                let image = id(each, "image_id", "an annotation", path)?;
                let Some((name, size)) = images.get(&image) else {
                    return Err(Error::data(
                        path,
                        format!("expected an image with the id {image} of an annotation, got none"),
                    ));
                };
                let Some(&class) = numbers.get(id(each, "category_id", name, path)?.as_str()) else {
                    continue;
                };
                let rect = rect(each, *size).ok_or_else(|| lacks(path, name, "bbox of four numbers"))?;
                let of_image = boxes.entry(name).or_default();
                if rect[2] * rect[3] > config.min_object_area {
                    of_image.push(LayoutBox { class, rect });
                }
            }
        }
        let counts = config.min_objects_per_image..=config.max_objects_per_image;
        // As in CompVis, images without any annotation are left out, also with a minimum of 0.
        let boxes = boxes.into_iter().filter(|(_, boxes)| counts.contains(&boxes.len()));
        Ok(Self {
            boxes: boxes.map(|(name, boxes)| (name.to_owned(), boxes)).collect(),
            classes: categories.into_values().collect(),
            is_part: false,
        })
    }
}

/// Returns true for annotations of OpenImages; refuses keys of theirs for others.
fn is_open_images(config: &BoxesConfig) -> Result<bool> {
    let is_csv = |name: &&String| name.to_ascii_lowercase().ends_with(".csv");
    let csv_files = config.annotations.iter().filter(is_csv).count();
    if csv_files > 0 {
        if csv_files < config.annotations.len() {
            let got = config.annotations.join(", ");
            return Err(Error::expected("boxes.annotations", "files of one format", got));
        }
        return Ok(true);
    }
    for (key, given) in [
        ("class_descriptions", config.class_descriptions.is_some()),
        ("category_allow_list", !config.category_allow_list.is_empty()),
        ("category_mapping", !config.category_mapping.is_empty()),
    ] {
        if given {
            let got = config.annotations.join(", ");
            return Err(Error::expected(format!("boxes.{key}"), "annotations in OpenImages' .csv", got));
        }
    }
    Ok(false)
}

/// File name and size in pixels of each image, by id.
fn images(document: &Value, path: &Path) -> Result<HashMap<String, (String, [f64; 2])>> {
    let mut images = HashMap::new();
    for each in list(document, "images", path)? {
        let name = each["file_name"].as_str().ok_or_else(|| lacks(path, "an image", "file_name"))?;
        let side = |key| each[key].as_f64().filter(|side| *side > 0.).ok_or_else(|| lacks(path, name, key));
        images.insert(id(each, "id", name, path)?, (name.to_owned(), [side("width")?, side("height")?]));
    }
    Ok(images)
}

fn rect(annotation: &Value, [width, height]: [f64; 2]) -> Option<[f64; 4]> {
    let sides: Vec<f64> = annotation["bbox"].as_array()?.iter().filter_map(Value::as_f64).collect();
    let [x, y, w, h] = sides[..] else { return None };
    Some([x / width, y / height, w / width, h / height])
}

fn list<'a>(document: &'a Value, key: &str, path: &Path) -> Result<&'a Vec<Value>> {
    document[key].as_array().ok_or_else(|| lacks(path, "a file", key))
}

fn id(value: &Value, key: &str, what: &str, path: &Path) -> Result<String> {
    match &value[key] {
        Value::Number(number) => Ok(number.to_string()),
        Value::String(text) => Ok(text.clone()),
        _ => Err(lacks(path, what, key)),
    }
}

fn lacks(path: &Path, what: &str, key: &str) -> Error {
    Error::data(path, format!("expected COCO annotations, got {what} without `{key}`"))
}

/// Places boxes in an image that is cropped and flipped, and shuffles them.
///
/// taming-transformers `objects_center_points.py:144` `build`: shuffled, then boxes outside of the crop are dropped,
/// then `rescale_annotations` (`conditional_builder/utils.py:56`). That clamps the start of a box to the crop and does
/// not reduce its extent by the part cut off: a box that begins before the crop reaches too far.
pub(crate) fn placed(
    boxes: &[LayoutBox],
    placement: &Placement,
    encode_crop: bool,
    rng: &mut Rng,
) -> Vec<LayoutBox> {
    let mut boxes = boxes.to_vec();
    // Fisher-Yates shuffle, as Python's.
    for last in (1..boxes.len()).rev() {
        boxes.swap(last, rng.below(last as u64 + 1) as usize);
    }
    boxes.retain(|each| shared_area(each.rect, placement.crop) > 0.);
    let within = if encode_crop { [0., 0., 1., 1.] } else { placement.crop };
    for each in &mut boxes {
        let [x, y, width, height] = each.rect;
        let x = ((x - within[0]) / within[2]).clamp(0., 1.);
        let y = ((y - within[1]) / within[3]).clamp(0., 1.);
        each.rect = [x, y, (width / within[2]).min(1. - x), (height / within[3]).min(1. - y)];
        if placement.flip {
            each.rect = flipped(each.rect);
        }
    }
    boxes
}

fn shared_area(a: [f64; 4], b: [f64; 4]) -> f64 {
    let overlap = |k: usize| ((a[k] + a[k + 2]).min(b[k] + b[k + 2]) - a[k].max(b[k])).max(0.);
    overlap(0) * overlap(1)
}
