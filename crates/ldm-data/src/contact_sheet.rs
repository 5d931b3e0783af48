//! Contact sheets: the images of a batch, each next to its conditions.

use image::{Rgb, RgbImage};
use ldm_core::{LayoutBox, channels, image as images};
use tch::Tensor;

use crate::loader::batch::Batch;

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
    if let Some(map) = &batch.label_map {
        let labels = Vec::<u8>::try_from(map.get(index).view([-1])).expect("bytes");
        let shown = RgbImage::from_fn(size[1] as u32, size[0] as u32, |x, y| {
            let label = usize::from(labels[(y * size[1] as u32 + x) as usize]);
            Rgb(COLORS[label % 10].map(|value| value / (1 + label as u8 / 10)))
        });
        row.push(images::from_rgb8(&shown));
    }
    if let Some(layout) = &batch.prompt.layout {
        let mut shown = images::to_rgb8(&image);
        let crop = batch.prompt.crops.as_ref().map_or([0., 0., 1., 1.], |crops| crops[index as usize]);
        layout[index as usize].iter().for_each(|each| outline(&mut shown, each, crop));
        row.push(images::from_rgb8(&shown));
    }
    row
}

/// Draws the outline of a box, in a crop.
fn outline(image: &mut RgbImage, each: &LayoutBox, crop: [f64; 4]) {
    let (width, height) = (f64::from(image.width()), f64::from(image.height()));
    let [x, y, w, h] = each.rect;
    let [left, right] = [x, x + w].map(|x| ((x - crop[0]) / crop[2] * width) as i64);
    let [top, below] = [y, y + h].map(|y| ((y - crop[1]) / crop[3] * height) as i64);
    let color = Rgb(COLORS[each.class as usize % 10]);
    let mut dot = |x: i64, y: i64| {
        if (0..width as i64).contains(&x) && (0..height as i64).contains(&y) {
            image.put_pixel(x as u32, y as u32, color);
        }
    };
    (left..=right).for_each(|x| [top, below - 1].into_iter().for_each(|y| dot(x, y)));
    (top..below).for_each(|y| [left, right - 1].into_iter().for_each(|x| dot(x, y)));
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Loader, LoaderConfig};

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
