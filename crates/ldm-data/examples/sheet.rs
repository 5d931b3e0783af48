//! Draws the first examples of a set with what is known of them: each picture, and beside it what its task gives, its
//! label map and its boxes.
//!
//!     cargo run -p ldm-data --example sheet -- SET.yaml SHEET.png

#![allow(clippy::print_stdout, reason = "a program")]

use std::path::Path;
use std::sync::Arc;

use image::{Rgb, RgbImage};
use ldm_core::{Error, LayoutBox, Result, image as pictures};
use ldm_data::{Batch, DatasetConfig, Loader, LoaderConfig, Position};
use tch::Tensor;

const COUNT: usize = 16;
const COLOURS: [[u8; 3]; 10] = [
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

fn main() -> Result<()> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [config, out] = &arguments[..] else {
        return Err(Error::invalid("expected SET.yaml and SHEET.png"));
    };
    let config: DatasetConfig = ldm_core::config::read(config, &[])?;
    let set = config.open(Path::new(""))?;
    println!("{}: {} examples; boxes of {}", set.name(), set.len(), set.box_classes().join(", "));
    let loader = LoaderConfig { workers: 0, strict: true, ..LoaderConfig::new(COUNT.min(set.len()), 1) };
    let batch = Loader::new(Arc::clone(&set), loader, Position::default())?.next().expect("no end")?;
    let mut cells = Vec::new();
    for index in 0..batch.images.size()[0] {
        cells.extend(row(&batch, index));
        let said = batch.prompt.text.as_ref().map_or("", |texts| &texts[index as usize]);
        println!("{} {said} {:?}", batch.names[index as usize], batch.crops[index as usize]);
    }
    let columns = (cells.len() as f64 / batch.images.size()[0] as f64) as i64 * 4;
    pictures::write_png(out, &pictures::grid(&Tensor::stack(&cells, 0), columns, 2), &[])
}

/// A picture, and what is known of it, each as large as it.
fn row(batch: &Batch, index: i64) -> Vec<Tensor> {
    let image = batch.images.get(index);
    let size = [image.size()[1], image.size()[2]];
    let mut row = vec![image.shallow_clone()];
    if let Some(given) = &batch.prompt.image {
        row.push(given.get(index).unsqueeze(0).upsample_nearest2d(size, None, None).squeeze_dim(0));
    }
    if let Some(map) = &batch.label_map {
        let labels = Vec::<u8>::try_from(map.get(index).view([-1])).expect("bytes");
        let shown = RgbImage::from_fn(size[1] as u32, size[0] as u32, |x, y| {
            let label = usize::from(labels[(y * size[1] as u32 + x) as usize]);
            Rgb(COLOURS[label % 10].map(|value| value / (1 + label as u8 / 10)))
        });
        row.push(pictures::from_rgb8(&shown));
    }
    if let Some(layout) = &batch.prompt.layout {
        let mut shown = pictures::to_rgb8(&image);
        let crop = batch.prompt.crops.as_ref().map_or([0., 0., 1., 1.], |crops| crops[index as usize]);
        layout[index as usize].iter().for_each(|each| outline(&mut shown, each, crop));
        row.push(pictures::from_rgb8(&shown));
    }
    row
}

/// The outline of a box, seen through a crop.
fn outline(picture: &mut RgbImage, each: &LayoutBox, crop: [f64; 4]) {
    let (width, height) = (f64::from(picture.width()), f64::from(picture.height()));
    let [x, y, w, h] = each.rect;
    let [left, right] = [x, x + w].map(|x| ((x - crop[0]) / crop[2] * width) as i64);
    let [top, below] = [y, y + h].map(|y| ((y - crop[1]) / crop[3] * height) as i64);
    let colour = Rgb(COLOURS[each.class as usize % 10]);
    let mut dot = |x: i64, y: i64| {
        if (0..width as i64).contains(&x) && (0..height as i64).contains(&y) {
            picture.put_pixel(x as u32, y as u32, colour);
        }
    };
    (left..=right).for_each(|x| [top, below - 1].into_iter().for_each(|y| dot(x, y)));
    (top..below).for_each(|y| [left, right - 1].into_iter().for_each(|x| dot(x, y)));
}
