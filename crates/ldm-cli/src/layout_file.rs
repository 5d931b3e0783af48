//! Layout files: labeled boxes in JSON.

use std::path::Path;

use anyhow::{Context, bail};
use ldm_core::LayoutBox;
use ldm_data::read_boxes;
use serde::Deserialize;
use serde_json::Value;

/// The boxes of one image, with labels `L`: words of the file, or class numbers of the model.
pub(crate) struct Layout<L> {
    /// The name of the image, else of the file.
    pub(crate) name: String,
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
pub(crate) fn read(path: &Path, wanted: Option<&str>) -> anyhow::Result<Vec<Layout<String>>> {
    let named = || path.display().to_string();
    let text = std::fs::read_to_string(path).with_context(named)?;
    let value: Value = serde_json::from_str(&text).with_context(named)?;
    if value.get("annotations").is_some() {
        return read_coco(path, wanted);
    }
    if wanted.is_some() {
        bail!("--image: expected COCO annotations, got the boxes of one image: {}", named());
    }
    let LayoutDocument { width, height, boxes } = serde_json::from_value(value).with_context(named)?;
    let size = match (width, height) {
        (Some(width), Some(height)) => [width, height],
        (None, None) => [1., 1.],
        _ => bail!("{}: expected both of width and height, or neither, got one", named()),
    };
    let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
    let boxes = boxes.into_iter().map(|each| {
        let label = each.label.as_str().map_or_else(|| each.label.to_string(), str::to_owned);
        Ok((label.clone(), part(each.rect, size).with_context(|| format!("the box of {label}"))?))
    });
    Ok(vec![Layout { name, boxes: boxes.collect::<anyhow::Result<_>>().with_context(named)? }])
}

fn read_coco(path: &Path, wanted: Option<&str>) -> anyhow::Result<Vec<Layout<String>>> {
    let (classes, images) = read_boxes(path)?;
    let mut layouts = Vec::new();
    for (name, boxes) in images.into_iter().filter(|(name, _)| wanted.is_none_or(|wanted| name == wanted)) {
        let boxes = boxes
            .into_iter()
            .map(|each| Ok((classes[each.class as usize].clone(), part(each.rect, [1., 1.])?)))
            .collect::<anyhow::Result<_>>()
            .with_context(|| format!("{}: {name}", path.display()))?;
        layouts.push(Layout { name, boxes });
    }
    match (layouts.is_empty(), wanted) {
        (false, _) => Ok(layouts),
        (true, Some(wanted)) => bail!("{}: expected boxes of image {wanted}, got none", path.display()),
        (true, None) => bail!("{}: expected images with boxes, got none", path.display()),
    }
}

/// Converts a box of an image of `[width, height]` to fractions of the image.
fn part(rect: [f64; 4], [width, height]: [f64; 2]) -> anyhow::Result<[f64; 4]> {
    let [x, y, w, h] = rect;
    let found = [x / width, y / height, w / width, h / height];
    // Annotations may end half a pixel outside.
    let inside = |start: f64, extent: f64, side: f64| {
        start >= 0. && extent > 0. && start + extent <= 1. + 0.5 / side.max(1e3)
    };
    if !(inside(found[0], found[2], width) && inside(found[1], found[3], height)) {
        bail!("expected [x, y, width, height] within an image of {width} x {height}, got {rect:?}");
    }
    Ok(found)
}

impl Layout<String> {
    /// Converts labels to class numbers of a model with the class names `names`, which may be empty.
    pub(crate) fn by_number(self, names: &[String], path: &Path) -> anyhow::Result<Layout<i64>> {
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
                let class = number(&label)
                    .with_context(|| format!("{}: label: expected {known}, got {label}", path.display()))?;
                Ok((class, rect))
            })
            .collect::<anyhow::Result<_>>()?;
        Ok(Layout { name: self.name, boxes })
    }
}

impl Layout<i64> {
    pub(crate) fn boxes(&self) -> Vec<LayoutBox> {
        self.boxes.iter().map(|&(class, rect)| LayoutBox { class, rect }).collect()
    }
}
