//! Contact sheets: the images of a batch or the samples of a model, each next to its conditions.

use image::{Rgb, RgbImage};
use ldm_core::{LayoutBox, Prompt, channels, image as images};
use tch::{Device, Kind, Tensor};

use crate::loader::batch::Batch;
use crate::text_panel::{text_panel, write_line};

/// The least width of a text next to an image, in pixels.
const TEXT_WIDTH: i64 = 160;

const COLORS: [[u8; 3]; 10] = [
    [30, 118, 179],
    [255, 126, 13],
    [43, 159, 43],
    [213, 38, 39],
    [147, 102, 188],
    [139, 85, 74],
    [226, 118, 193],
    [126, 126, 126],
    [187, 188, 33],
    [22, 189, 206],
];

/// Draws every image of a batch as the model gets it, and next to it, where there are such: the low-resolution or
/// masked image, the label map, and the boxes in the colors of their classes.
///
/// # Shapes
/// - returns `[3, H', W']` in `[-1, 1]`; rows of about as many cells as columns
pub fn contact_sheet(batch: &Batch) -> Tensor {
    let count = batch.images.size()[0];
    let cells: Vec<Tensor> = (0..count).flat_map(|index| row(batch, index)).collect();
    let each = cells.len() as i64 / count;
    let columns = ((cells.len() as f64).sqrt() / each as f64).ceil() as i64 * each;
    images::grid(&Tensor::stack(&cells, 0), columns, 2)
}

/// An image and its conditions, each as large as the image.
fn row(batch: &Batch, index: i64) -> Vec<Tensor> {
    let image = channels::shown(&batch.images.narrow(0, index, 1)).squeeze_dim(0);
    let size = [image.size()[1], image.size()[2]];
    let mut row = vec![image.shallow_clone()];
    if let Some(condition) = &batch.prompt.image {
        row.push(condition.get(index).unsqueeze(0).upsample_nearest2d(size, None, None).squeeze_dim(0));
    }
    row.extend(batch.label_map.as_ref().map(|map| label_colors(&map.get(index))));
    if let Some(layout) = &batch.prompt.layout {
        let mut shown = images::to_rgb8(&image);
        let crop = batch.prompt.crops.as_ref().map_or([0., 0., 1., 1.], |crops| crops[index as usize]);
        for each in &layout[index as usize] {
            let _ = outline(&mut shown, each, crop);
        }
        row.push(images::from_rgb8(&shown));
    }
    row
}

/// Names of the classes and of the classes of boxes.
#[derive(Debug, Clone, Copy, Default)]
pub struct SheetNames<'a> {
    /// Classes; one without a name is shown by its number.
    pub classes: &'a [String],
    /// Classes of boxes, likewise.
    pub box_classes: &'a [String],
}

/// Draws each sample next to the condition it was generated from: the masked or low-resolution image, the label map, the
/// boxes with their names, the caption or the name of the class; and next to these the image of `originals`. A sample
/// without any is drawn alone.
///
/// # Shapes
/// - `samples`: `[B, 3, H, W]` in `[-1, 1]`; `originals`: the same, of any size
/// - returns `[3, H', W']`: rows of about as much width as the sheet has height
pub fn condition_sheet(
    samples: &Tensor,
    prompt: &Prompt,
    originals: Option<&Tensor>,
    names: SheetNames,
) -> Tensor {
    let samples = samples.to_device(Device::Cpu).to_kind(Kind::Float);
    let size = [samples.size()[2], samples.size()[3]];
    let items: Vec<Tensor> = (0..samples.size()[0])
        .map(|index| {
            let mut cells = vec![samples.get(index)];
            cells.extend(condition_cells(prompt, index, size, names));
            if let Some(originals) = originals {
                cells.push(resized(&originals.get(index), size));
            }
            beside(&cells)
        })
        .collect();
    let count = items.len() as f64;
    let columns = (count * size[0] as f64 / items[0].size()[2] as f64).sqrt().ceil();
    images::grid(&Tensor::stack(&items, 0), columns as i64, 2)
}

/// The conditions of a sample, each as high as the sample.
fn condition_cells(prompt: &Prompt, index: i64, [height, width]: [i64; 2], names: SheetNames) -> Vec<Tensor> {
    let mut cells = Vec::new();
    cells.extend(prompt.image.as_ref().map(|image| resized(&image.get(index), [height, width])));
    if let Some(map) = prompt.mask.as_ref().filter(|map| map.size()[1] > 1) {
        let labels = map.get(index).to_device(Device::Cpu).argmax(0, false).to_kind(Kind::Uint8);
        cells.push(resized(&label_colors(&labels), [height, width]));
    }
    if let Some(layout) = &prompt.layout {
        let mut shown = RgbImage::from_pixel(width as u32, height as u32, Rgb([255; 3]));
        let crop = prompt.crops.as_ref().map_or([0., 0., 1., 1.], |crops| crops[index as usize]);
        for each in &layout[index as usize] {
            let [left, top] = outline(&mut shown, each, crop);
            let name = name_of(names.box_classes, each.class);
            write_line(&mut shown, &name, [left as i32 + 2, top as i32 + 2], color_of(each.class));
        }
        cells.push(images::from_rgb8(&shown));
    }
    let class = |classes: &Tensor| name_of(names.classes, classes.int64_value(&[index]));
    let text = prompt.text.as_ref().map(|texts| texts[index as usize].clone());
    if let Some(text) = text.or_else(|| prompt.class.as_ref().map(class)) {
        let panel = text_panel(&text, width.max(TEXT_WIDTH) as u32, height as u32);
        cells.push(images::from_rgb8(&panel));
    }
    cells
}

/// The name of a class, or its number.
fn name_of(names: &[String], class: i64) -> String {
    let name = usize::try_from(class).ok().and_then(|class| names.get(class));
    name.cloned().unwrap_or_else(|| format!("class {class}"))
}

/// Cells of one height in a row, with a black column of two pixels between them.
fn beside(cells: &[Tensor]) -> Tensor {
    let gap = Tensor::full([3, cells[0].size()[1], 2], -1., (Kind::Float, Device::Cpu));
    let mut row = Vec::new();
    for cell in cells {
        if !row.is_empty() {
            row.push(&gap);
        }
        row.push(cell);
    }
    Tensor::cat(&row, 2)
}

/// An image `[C, h, w]` as RGB of `size`, by the nearest pixel.
fn resized(image: &Tensor, size: [i64; 2]) -> Tensor {
    let image = image.to_device(Device::Cpu).to_kind(Kind::Float).unsqueeze(0);
    channels::shown(&image).upsample_nearest2d(size, None, None).squeeze_dim(0).clamp(-1., 1.)
}

/// A label map `[H, W]` u8 in colors, `[3, H, W]`.
fn label_colors(map: &Tensor) -> Tensor {
    let size = map.size();
    let labels = Vec::<u8>::try_from(map.view([-1])).expect("bytes");
    let shown = RgbImage::from_fn(size[1] as u32, size[0] as u32, |x, y| {
        let label = usize::from(labels[(y * size[1] as u32 + x) as usize]);
        Rgb(COLORS[label % 10].map(|value| value / (1 + label as u8 / 10)))
    });
    images::from_rgb8(&shown)
}

/// The color of a class of boxes.
fn color_of(class: i64) -> Rgb<u8> {
    Rgb(COLORS[class.rem_euclid(10) as usize])
}

/// Draws the outline of a box, in a crop; returns its left and top side.
fn outline(image: &mut RgbImage, each: &LayoutBox, crop: [f64; 4]) -> [i64; 2] {
    let (width, height) = (f64::from(image.width()), f64::from(image.height()));
    let [x, y, w, h] = each.rect;
    let [left, right] = [x, x + w].map(|x| ((x - crop[0]) / crop[2] * width) as i64);
    let [top, below] = [y, y + h].map(|y| ((y - crop[1]) / crop[3] * height) as i64);
    let color = color_of(each.class);
    let mut dot = |x: i64, y: i64| {
        if (0..width as i64).contains(&x) && (0..height as i64).contains(&y) {
            image.put_pixel(x as u32, y as u32, color);
        }
    };
    (left..=right).for_each(|x| [top, below - 1].into_iter().for_each(|y| dot(x, y)));
    (top..below).for_each(|y| [left, right - 1].into_iter().for_each(|x| dot(x, y)));
    [left, top]
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Loader, LoaderConfig};

    fn cell(sheet: &Tensor, top: i64, left: i64, width: i64) -> Tensor {
        sheet.narrow(1, top, 32).narrow(2, left, width)
    }

    #[test]
    fn samples_are_drawn_next_to_their_conditions_and_unchanged() {
        let sample = |value: f64| Tensor::full([1, 3, 32, 32], value, (Kind::Float, Device::Cpu));
        let samples = Tensor::cat(&[sample(0.25), sample(-0.5)], 0);
        let names = vec!["cat".to_owned(), "dog".to_owned()];
        let names = SheetNames { classes: &names, box_classes: &names };
        // Alone, as a plain grid.
        let sheet = condition_sheet(&samples, &Prompt::default(), None, names);
        assert_eq!(sheet, images::grid(&samples, 2, 2));
        // A text is wider than the sample.
        let texts = |prompt: &Prompt| condition_sheet(&samples, prompt, None, names);
        let classes = texts(&Prompt::class(&[1, 7]));
        assert_eq!(classes.size(), [3, 2 * 34 + 2, 32 + 2 + 160 + 4]);
        for (index, top) in [2, 36].into_iter().enumerate() {
            assert_eq!(cell(&classes, top, 2, 32), samples.get(index as i64));
        }
        assert_eq!(classes, texts(&Prompt::text(["dog", "class 7"])));
        assert_ne!(classes, texts(&Prompt::text(["cat", "class 7"])));
        // A low-resolution image, boxes, and the original.
        let small = Tensor::linspace(-1., 1., 2 * 3 * 16, (Kind::Float, Device::Cpu)).view([2, 3, 4, 4]);
        let layout = |class| vec![LayoutBox { class, rect: [0.25, 0.25, 0.5, 0.5] }];
        let layout = Some(vec![layout(0), layout(1)]);
        let prompt = Prompt { image: Some(small.shallow_clone()), layout, ..Prompt::default() };
        let sheet = condition_sheet(&samples, &prompt, Some(&samples), names);
        assert_eq!(sheet.size(), [3, 2 * 34 + 2, 4 * 34 + 2]);
        assert_eq!(cell(&sheet, 2, 2, 32), samples.get(0));
        let shown = cell(&sheet, 36, 36, 32);
        assert_eq!(shown.slice(1, 0, 32, 8).slice(2, 0, 32, 8), small.get(1));
        let boxes = cell(&sheet, 2, 70, 32);
        assert_eq!(boxes.double_value(&[0, 0, 0]), 1., "on white");
        assert_ne!(boxes, cell(&sheet, 36, 70, 32), "of the color and with the name of its class");
        assert_eq!(cell(&sheet, 36, 104, 32), samples.get(1), "the original");
        // A label map.
        let map = Tensor::eye(32, (Kind::Float, Device::Cpu)).expand([2, 1, 32, 32], false);
        let mask = Some(Tensor::cat(&[1. - &map, map], 1));
        let sheet = condition_sheet(&samples, &Prompt { mask, ..Prompt::default() }, None, names);
        let colors = cell(&sheet, 2, 36, 32);
        let at = |x: i64| Vec::<f32>::try_from(colors.narrow(1, 0, 1).narrow(2, x, 1).reshape([-1])).unwrap();
        let color = |label: usize| COLORS[label].map(|value| f32::from(value) / 127.5 - 1.).to_vec();
        assert_eq!([at(0), at(5)], [color(1), color(0)]);
    }

    #[test]
    fn conditions_are_drawn_next_to_their_image() {
        let text = "{target: scenes, params: {size: 32, count: 3, task: {target: super_resolution, params: {degradation: pil_bicubic}}}}";
        let config: crate::DatasetConfig = ldm_core::config::parse(text, "scenes.yaml", &[]).unwrap();
        let set = config.open(std::path::Path::new("")).unwrap();
        let loader = LoaderConfig { workers: 0, drop_last: false, ..LoaderConfig::new(3, 1) };
        let batch = Loader::one_pass(set, loader).unwrap().next().unwrap().unwrap();
        let sheet = contact_sheet(&batch);
        // Four cells each (small, labels, boxes), one image a row, a border of two.
        assert_eq!(sheet.size(), [3, 3 * 34 + 2, 4 * 34 + 2]);
        let cell = |row: i64, column: i64| sheet.narrow(1, 2 + row * 34, 32).narrow(2, 2 + column * 34, 32);
        for row in 0..3 {
            assert_eq!(cell(row, 0), batch.images.get(row));
            let small = cell(row, 1);
            assert_eq!(
                small.slice(1, 0, 32, 4).slice(2, 0, 32, 4),
                batch.prompt.image.as_ref().unwrap().get(row)
            );
            assert_ne!(small, cell(row, 0));
            assert_ne!(cell(row, 3), cell(row, 0), "a box is drawn");
        }
    }
}
