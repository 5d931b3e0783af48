//! Layout files: labeled boxes in JSON.

use std::path::Path;

use ldm_core::{Error, LayoutBox, Result, text};
use ldm_data::read_boxes;
use serde::Deserialize;
use serde_json::Value;

/// The boxes of one image, with labels `L`: words of the file, or class numbers of the model.
#[derive(Debug)]
pub struct Layout<L> {
    /// The name of the image, else of the file.
    pub name: String,
    /// Label, and `[x, y, width, height]` as fractions of the image.
    boxes: Vec<(L, [f64; 4])>,
}

/// The format of ldm.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct LayoutDocument {
    /// Size of the image in pixels; absent if the boxes are fractions of the image.
    width: Option<f64>,
    height: Option<f64>,
    boxes: Vec<LabeledBox>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct LabeledBox {
    label: Value,
    #[serde(rename = "box")]
    rect: [f64; 4],
}

/// Reads the layouts of a file: a single one, or those of COCO annotations, of the image `wanted` if given.
///
/// # Errors
/// [`Error::Io`]; [`Error::Format`] when it is neither, when a box is outside of its image, and when there are no boxes.
pub fn read_layouts(path: &Path, wanted: Option<&str>) -> Result<Vec<Layout<String>>> {
    let wrong = |message: String| Error::format(path, message);
    let value: Value = text::read_json(path)?;
    if value.get("annotations").is_some() {
        return read_coco(path, wanted);
    }
    if wanted.is_some() {
        return Err(wrong(
            "expected COCO annotations, of which an image is requested, got the boxes of one".into(),
        ));
    }
    let LayoutDocument { width, height, boxes } =
        serde_json::from_value(value).map_err(|error| wrong(error.to_string()))?;
    let size = match (width, height) {
        (Some(width), Some(height)) => [width, height],
        (None, None) => [1., 1.],
        _ => return Err(wrong("expected both of width and height, or neither, got one".into())),
    };
    let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
    let boxes = boxes.into_iter().map(|each| {
        let label = each.label.as_str().map_or_else(|| each.label.to_string(), str::to_owned);
        match part(each.rect, size) {
            Ok(rect) => Ok((label, rect)),
            Err(message) => Err(wrong(format!("the box of {label}: {message}"))),
        }
    });
    Ok(vec![Layout { name, boxes: boxes.collect::<Result<_>>()? }])
}

fn read_coco(path: &Path, wanted: Option<&str>) -> Result<Vec<Layout<String>>> {
    let wrong = |message: String| Error::format(path, message);
    let (classes, images) = read_boxes(path)?;
    let mut layouts = Vec::new();
    for (name, boxes) in images.into_iter().filter(|(name, _)| wanted.is_none_or(|wanted| name == wanted)) {
        let boxes = boxes
            .into_iter()
            .map(|each| Ok((classes[each.class as usize].clone(), part(each.rect, [1., 1.])?)))
            .collect::<std::result::Result<_, String>>()
            .map_err(|message| wrong(format!("{name}: {message}")))?;
        layouts.push(Layout { name, boxes });
    }
    match (layouts.is_empty(), wanted) {
        (false, _) => Ok(layouts),
        (true, Some(wanted)) => Err(wrong(format!("expected boxes of image {wanted}, got none"))),
        (true, None) => Err(wrong("expected images with boxes, got none".into())),
    }
}

/// Converts a box of an image of `[width, height]` to fractions of the image.
fn part(rect: [f64; 4], [width, height]: [f64; 2]) -> std::result::Result<[f64; 4], String> {
    let [x, y, w, h] = rect;
    let found = [x / width, y / height, w / width, h / height];
    // Annotations may end half a pixel outside.
    let inside = |start: f64, extent: f64, side: f64| {
        start >= 0. && extent > 0. && start + extent <= 1. + 0.5 / side.max(1e3)
    };
    if !(inside(found[0], found[2], width) && inside(found[1], found[3], height)) {
        return Err(format!(
            "expected [x, y, width, height] within an image of {width} x {height}, got {rect:?}"
        ));
    }
    Ok(found)
}

impl Layout<String> {
    /// Converts labels to class numbers of a model with the class names `names`, which may be empty; `path` is the file.
    ///
    /// # Errors
    /// [`Error::Format`] for an unknown label.
    pub fn by_number(self, names: &[String], path: &Path) -> Result<Layout<i64>> {
        let number = |label: &str| {
            let found = names.iter().position(|name| name == label).map(|index| index as i64);
            found.or_else(|| {
                label
                    .parse()
                    .ok()
                    .filter(|number| names.is_empty() || (0..names.len() as i64).contains(number))
            })
        };
        let boxes = self
            .boxes
            .into_iter()
            .map(|(label, rect)| {
                let known = match names {
                    [] => "class numbers, since the model has no class names".to_owned(),
                    names => format!("one of {}", names.join(", ")),
                };
                let wrong = || Error::format(path, format!("label: expected {known}, got {label}"));
                Ok((number(&label).ok_or_else(wrong)?, rect))
            })
            .collect::<Result<_>>()?;
        Ok(Layout { name: self.name, boxes })
    }
}

impl Layout<i64> {
    /// The boxes.
    pub fn boxes(&self) -> Vec<LayoutBox> {
        self.boxes.iter().map(|&(class, rect)| LayoutBox { class, rect }).collect()
    }
}
