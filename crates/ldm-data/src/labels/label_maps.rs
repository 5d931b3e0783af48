//! Label maps: labels of the pixels of an image, as a gray or palette PNG.

use std::collections::HashMap;
use std::io::Cursor;
use std::path::{Path, PathBuf};

use image::{DynamicImage, GrayImage};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use ldm_core::{Error, Result, image as images, text};

use crate::image::decode::{decode, decode_alpha};
use crate::source::data_paths::DataPaths;
use crate::source::paired_files::PairedFilesConfig;

/// Label maps in files next to the images. The values of a PNG are its labels: the index of a palette, the value of
/// gray.
///
/// taming-transformers `data/sflckr.py` `SegmentationBase`. A map is resized by the nearest pixel (by
/// OpenCV's rule where the transform's interpolation is OpenCV's), cropped and flipped as its image.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LabelMapsConfig {
    /// The files.
    pub files: PairedFilesConfig,
    /// Number of labels, from 0. Left out, that of `classes_file`.
    #[serde(default)]
    pub n_labels: Option<usize>,
    /// Adds 1 to every value, so that 255 becomes 0: for COCO, where 255 means unlabeled.
    #[serde(default)]
    pub shift: bool,
    /// A JSON whose `classes` have an `id` (the value in the maps), a `name`, and an `index` where ids have gaps.
    #[serde(default)]
    pub classes_file: Option<PathBuf>,
}

/// Labels of the values of a map.
#[derive(Debug)]
pub(crate) struct Labels {
    /// Names of the labels; empty where no file names them.
    pub(crate) names: Vec<String>,
    pub(crate) count: usize,
    /// Label of each value.
    of: Vec<Option<u8>>,
}

impl Labels {
    pub(crate) fn open(config: &LabelMapsConfig, paths: &DataPaths) -> Result<Self> {
        let (mut names, mut of) = (Vec::new(), vec![None; 256]);
        let mut named = None;
        if let Some(file) = &config.classes_file {
            let path = paths.resolve(file)?;
            let bytes = std::fs::read(&path).map_err(Error::io(&path))?;
            let labels = classes(&bytes).map_err(|message| Error::data(&path, message))?;
            let count = labels.values().map(|(label, _)| usize::from(*label) + 1).max().unwrap_or(0);
            names = vec![String::new(); count];
            for (value, (label, name)) in labels {
                of[usize::from(value)] = Some(label);
                names[usize::from(label)] = name;
            }
            named = Some(count);
        }
        let count = config.n_labels.or(named).ok_or_else(|| {
            Error::invalid("label_maps: expected n_labels, or a classes_file that names them")
        })?;
        if !(1..=256).contains(&count) {
            return Err(Error::invalid(format!("label_maps.n_labels: expected 1 to 256, got {count}")));
        }
        if named.is_some_and(|named| named > count) {
            return Err(Error::invalid(format!(
                "label_maps.n_labels: expected at least {}, the number of labels in classes_file, got {count}",
                names.len()
            )));
        }
        if named.is_none() {
            of = (0..256).map(|value| u8::try_from(value).ok().filter(|_| value < count)).collect();
        }
        if config.shift {
            if named.is_none() {
                // CompVis' uint8 + 1: 255 becomes 0.
                of = (0..=255u8)
                    .map(|v| Some(v.wrapping_add(1)).filter(|v| usize::from(*v) < count))
                    .collect();
            } else {
                of.rotate_left(1);
            }
        }
        Ok(Self { names, count, of })
    }

    /// Reads the labels of a map; the error names a value without a label, and its pixel.
    pub(crate) fn read(&self, bytes: &[u8]) -> std::result::Result<GrayImage, String> {
        let mut map = values(bytes)?;
        for (x, y, pixel) in map.enumerate_pixels_mut() {
            pixel.0[0] = self.label(pixel.0[0], [x, y])?;
        }
        Ok(map)
    }

    /// Checks that the values of a map have labels below `count`. A file that cannot be read passes.
    pub(crate) fn check(&self, bytes: &[u8], count: i64) -> std::result::Result<(), String> {
        let Ok(map) = values(bytes) else { return Ok(()) };
        for (x, y, pixel) in map.enumerate_pixels() {
            let label = self.label(pixel.0[0], [x, y])?;
            if i64::from(label) >= count {
                let last = count - 1;
                return Err(format!(
                    "expected the model's labels 0 to {last}, got {label} at column {x}, row {y}"
                ));
            }
        }
        Ok(())
    }

    /// The label of a value; the error names its pixel.
    fn label(&self, value: u8, [x, y]: [u32; 2]) -> std::result::Result<u8, String> {
        self.of[usize::from(value)].ok_or_else(|| {
            format!("expected values of {} labels, got {value} at column {x}, row {y}", self.count)
        })
    }
}

/// Reads a label map: the values of a gray or palette PNG.
///
/// # Errors
/// [`Error::Io`], and [`Error::Data`] for any other file.
pub fn read_label_map(path: impl AsRef<Path>) -> Result<GrayImage> {
    let path = path.as_ref();
    let bytes = std::fs::read(path).map_err(Error::io(path))?;
    values(&bytes).map_err(|message| Error::data(path, message))
}

/// Reads the label of each color from a classes file whose classes have a `color`.
///
/// # Errors
/// [`Error::Io`], and [`Error::Data`] for any other file, and for two labels of one color.
pub fn read_palette(path: impl AsRef<Path>) -> Result<HashMap<[u8; 3], u8>> {
    let path = path.as_ref();
    let bytes = std::fs::read(path).map_err(Error::io(path))?;
    palette(&bytes).map_err(|message| Error::data(path, message))
}

fn palette(bytes: &[u8]) -> std::result::Result<HashMap<[u8; 3], u8>, String> {
    let labels = classes(bytes)?;
    let value: Value = text::decode_json(bytes)?;
    let mut palette = HashMap::new();
    for each in value["classes"].as_array().into_iter().flatten() {
        let id = each["id"].as_u64().and_then(|id| u8::try_from(id).ok());
        let (label, name) =
            id.and_then(|id| labels.get(&id)).ok_or("expected an `id` of each class, got none")?;
        let color: [u8; 3] = serde_json::from_value(each["color"].clone())
            .map_err(|_| format!("class {name}: expected `color`, three values within 0 to 255"))?;
        if palette.insert(color, *label).is_some() {
            return Err(format!("class {name}: expected a color that no other class has, got {color:?}"));
        }
    }
    Ok(palette)
}

/// Label and name of each value, from a classes file.
fn classes(bytes: &[u8]) -> std::result::Result<HashMap<u8, (u8, String)>, String> {
    let value: Value = text::decode_json(bytes)?;
    let list = value["classes"].as_array().ok_or("expected a list `classes`, got none")?;
    let byte = |each: &Value, key: &str| {
        each[key]
            .as_u64()
            .and_then(|number| u8::try_from(number).ok())
            .ok_or_else(|| format!("expected `{key}` of a class within 0 to 255, got {each}"))
    };
    let one = |each: &Value| {
        let id = byte(each, "id")?;
        let label = if each.get("index").is_some() { byte(each, "index")? } else { id };
        Ok((id, (label, each["name"].as_str().unwrap_or_default().to_owned())))
    };
    list.iter().map(one).collect()
}

/// Reads the values of a gray or palette PNG of any bit depth.
fn values(bytes: &[u8]) -> std::result::Result<GrayImage, String> {
    let broken = |error: png::DecodingError| format!("expected a PNG, got {error}");
    let mut reader = png::Decoder::new(Cursor::new(bytes)).read_info().map_err(broken)?;
    let (color, depth) = reader.output_color_type();
    let bits = depth as usize;
    if !matches!(color, png::ColorType::Grayscale | png::ColorType::Indexed) || bits > 8 {
        return Err(format!(
            "expected a gray or palette PNG of at most 8 bits, got {color:?} of {bits} bits"
        ));
    }
    let size = reader.output_buffer_size().filter(|&size| size as u64 <= images::LARGEST);
    let orientation = reader.info().exif_metadata.as_ref().map(|exif| images::orientation(exif));
    let mut buffer = vec![
        0;
        size.ok_or_else(|| {
            let info = reader.info();
            format!(
                "expected an image of at most {} bytes, got {}x{}",
                images::LARGEST,
                info.width,
                info.height
            )
        })?
    ];
    let frame = reader.next_frame(&mut buffer).map_err(broken)?;
    let (width, height) = (frame.width, frame.height);
    let mut values = Vec::with_capacity(width as usize * height as usize);
    for row in buffer.chunks_exact(frame.line_size).take(height as usize) {
        // The first pixel is in the highest bits of a byte.
        let value = |x: usize| (row[x * bits / 8] >> (8 - bits - x * bits % 8)) & (0xff >> (8 - bits)) as u8;
        values.extend((0..width as usize).map(value));
    }
    let map = GrayImage::from_raw(width, height, values).expect("a value a pixel");
    let Some(orientation) = orientation else { return Ok(map) };
    let mut map = DynamicImage::ImageLuma8(map);
    map.apply_orientation(orientation);
    Ok(map.into_luma8())
}

/// Reads a mask: 1, to be filled, for values of at least 128 (CompVis `scripts/inpaint.py:25`); of a file with transparent
/// pixels where it is opaque ([`ldm_core::image::mask_of`]).
pub(crate) fn mask(bytes: &[u8]) -> std::result::Result<GrayImage, String> {
    let alpha = decode_alpha(bytes)?;
    let by_alpha = alpha.iter().any(|value| *value < 255);
    let mut mask = DynamicImage::from(if by_alpha { alpha } else { decode(bytes)? }).into_luma8();
    mask.pixels_mut().for_each(|pixel| pixel.0[0] = u8::from(pixel.0[0] >= 128));
    Ok(mask)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn png_of(color: png::ColorType, depth: png::BitDepth, width: u32, rows: &[u8]) -> Vec<u8> {
        let mut bytes = Vec::new();
        let stride =
            (width as usize * depth as usize).div_ceil(8) * if color == png::ColorType::Rgb { 3 } else { 1 };
        let mut encoder = png::Encoder::new(&mut bytes, width, (rows.len() / stride) as u32);
        encoder.set_color(color);
        encoder.set_depth(depth);
        if color == png::ColorType::Indexed {
            encoder.set_palette((0..48).collect::<Vec<u8>>());
        }
        encoder.write_header().unwrap().write_image_data(rows).unwrap();
        bytes
    }

    #[test]
    fn a_mask_with_transparent_pixels_is_opaque_where_it_fills() {
        // White and transparent, black and opaque.
        let rows = [255, 255, 255, 0, 0, 0, 0, 255];
        let mut bytes = Vec::new();
        let mut encoder = png::Encoder::new(&mut bytes, 2, 1);
        encoder.set_color(png::ColorType::Rgba);
        encoder.set_depth(png::BitDepth::Eight);
        encoder.write_header().unwrap().write_image_data(&rows).unwrap();
        assert_eq!(mask(&bytes).unwrap().as_raw(), &[0, 1]);
        let gray = png_of(png::ColorType::Grayscale, png::BitDepth::Eight, 3, &[127, 128, 255]);
        assert_eq!(mask(&gray).unwrap().as_raw(), &[0, 1, 1]);
    }

    #[test]
    fn values_are_indices_at_every_bit_depth() {
        let check = |color, depth, rows: &[u8], expected: &[u8]| {
            let map = values(&png_of(color, depth, 3, rows)).unwrap();
            assert_eq!(map.as_raw(), expected, "{color:?} {depth:?}");
        };
        check(png::ColorType::Grayscale, png::BitDepth::Eight, &[7, 0, 255], &[7, 0, 255]);
        check(png::ColorType::Indexed, png::BitDepth::Eight, &[3, 9, 15], &[3, 9, 15]);
        check(png::ColorType::Indexed, png::BitDepth::Four, &[0x3f, 0x90], &[3, 15, 9]);
        check(png::ColorType::Grayscale, png::BitDepth::Two, &[0b0111_1000], &[1, 3, 2]);
        check(png::ColorType::Indexed, png::BitDepth::One, &[0b1010_0000], &[1, 0, 1]);
        let rgb = png_of(png::ColorType::Rgb, png::BitDepth::Eight, 1, &[1, 2, 3]);
        assert_eq!(
            values(&rgb).unwrap_err(),
            "expected a gray or palette PNG of at most 8 bits, got Rgb of 8 bits"
        );
        assert!(values(b"no").unwrap_err().starts_with("expected a PNG, got "));
    }

    #[test]
    fn the_claim_of_a_file_does_not_decide_the_memory() {
        let file = ldm_testing::claiming_png(200_000);
        let message = values(&file).unwrap_err();
        assert_eq!(message, "expected an image of at most 536870912 bytes, got 200000x200000");
    }

    #[test]
    fn maps_are_turned_upright_as_their_images() {
        // Orientation 6: the camera was turned to the right.
        let exif = b"MM\0\x2a\0\0\0\x08\0\x01\x01\x12\0\x03\0\0\0\x01\0\x06\0\0\0\0\0\0";
        let mut info = png::Info::with_size(3, 2);
        info.exif_metadata = Some(exif.as_slice().into());
        let mut file = Vec::new();
        let encoder = png::Encoder::with_info(&mut file, info).unwrap();
        encoder.write_header().unwrap().write_image_data(&[1, 2, 3, 4, 5, 6]).unwrap();
        let map = values(&file).unwrap();
        assert_eq!((map.dimensions(), map.into_raw()), ((2, 3), vec![4, 1, 5, 2, 6, 3]));
    }

    fn labels(n_labels: Option<usize>, shift: bool, classes: Option<&str>) -> Result<Labels> {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("classes.json");
        if let Some(classes) = classes {
            std::fs::write(&file, classes).unwrap();
        }
        let config = LabelMapsConfig {
            files: PairedFilesConfig::default(),
            n_labels,
            shift,
            classes_file: classes.map(|_| file),
        };
        Labels::open(&config, &DataPaths::new(Path::new("")))
    }

    fn read(labels: &Labels, values: &[u8]) -> std::result::Result<Vec<u8>, String> {
        let png = png_of(png::ColorType::Grayscale, png::BitDepth::Eight, values.len() as u32, values);
        labels.read(&png).map(GrayImage::into_raw)
    }

    #[test]
    fn values_become_labels() {
        let plain = labels(Some(3), false, None).unwrap();
        assert_eq!(read(&plain, &[0, 2]).unwrap(), [0, 2]);
        let message = read(&plain, &[0, 3]).unwrap_err();
        assert_eq!(message, "expected values of 3 labels, got 3 at column 1, row 0");
        let map = png_of(png::ColorType::Grayscale, png::BitDepth::Eight, 2, &[0, 2]);
        plain.check(&map, 3).unwrap();
        let message = plain.check(&map, 2).unwrap_err();
        assert_eq!(message, "expected the model's labels 0 to 1, got 2 at column 1, row 0");
        plain.check(b"unreadable", 2).unwrap();
        // COCO's 182 labels and unlabeled: taming's n_labels is 183.
        let coco = labels(Some(183), true, None).unwrap();
        assert_eq!(read(&coco, &[255, 0, 181]).unwrap(), [0, 1, 182]);
        assert!(read(&coco, &[182]).is_err());
        let named = labels(
            None,
            false,
            Some(r#"{"classes": [{"id": 0, "name": "no", "index": 0}, {"id": 200, "name": "rug", "index": 1}]}"#),
        )
        .unwrap();
        assert_eq!((named.count, &named.names[1][..]), (2, "rug"));
        assert_eq!(read(&named, &[200, 0]).unwrap(), [1, 0]);
        assert!(read(&named, &[1]).is_err());
    }

    #[test]
    fn the_number_of_labels_is_required() {
        let message = |n, classes| labels(n, false, classes).unwrap_err().to_string();
        assert_eq!(message(None, None), "label_maps: expected n_labels, or a classes_file that names them");
        assert_eq!(message(Some(300), None), "label_maps.n_labels: expected 1 to 256, got 300");
        assert_eq!(
            message(Some(1), Some(r#"{"classes": [{"id": 4, "name": "x"}]}"#)),
            "label_maps.n_labels: expected at least 5, the number of labels in classes_file, got 1"
        );
        assert!(message(None, Some("{}")).contains("expected a list `classes`, got none"));
    }
}
