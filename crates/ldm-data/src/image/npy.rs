//! Images in NumPy's `.npy`, as those of CelebA-HQ in taming-transformers (`data/base.py`, `NumpyPaths`).

use image::{DynamicImage, GrayImage, RgbImage};

/// First bytes of the format.
pub(crate) const MAGIC: &[u8] = b"\x93NUMPY";

/// Layout of the bytes of an image.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Axes {
    /// `[3, H, W]`, also `[1, 3, H, W]`.
    ChannelsFirst,
    /// `[H, W, 3]`, also `[1, H, W, 3]`.
    ChannelsLast,
    /// `[H, W]`, also with a channel of 1.
    Gray,
}

/// Decodes an array of u8 in C order: `[3, H, W]`, `[H, W, 3]` or `[H, W]`, with or without a first axis of 1.
pub(crate) fn decode(bytes: &[u8]) -> Result<RgbImage, String> {
    let (axes, [width, height], values) = read(bytes)?;
    let (w, h) = (width as usize, height as usize);
    Ok(match axes {
        Axes::ChannelsLast => RgbImage::from_raw(width, height, values.to_vec()).expect("3·H·W bytes"),
        Axes::Gray => {
            let gray = GrayImage::from_raw(width, height, values.to_vec()).expect("H·W bytes");
            DynamicImage::ImageLuma8(gray).into_rgb8()
        }
        Axes::ChannelsFirst => RgbImage::from_fn(width, height, |x, y| {
            let at = y as usize * w + x as usize;
            image::Rgb([values[at], values[w * h + at], values[2 * w * h + at]])
        }),
    })
}

/// Reads width and height.
pub(crate) fn dimensions(bytes: &[u8]) -> Result<[u32; 2], String> {
    read(bytes).map(|(_, size, _)| size)
}

/// Reads the layout, width and height, and the values.
fn read(bytes: &[u8]) -> Result<(Axes, [u32; 2], &[u8]), String> {
    let short = || "expected a whole .npy, got a truncated one".to_owned();
    let version = *bytes.get(MAGIC.len()).ok_or_else(short)?;
    let at = MAGIC.len() + 2;
    let (length, start) = if version == 1 {
        let length = bytes.get(at..).and_then(<[u8]>::first_chunk).ok_or_else(short)?;
        (usize::from(u16::from_le_bytes(*length)), at + 2)
    } else {
        let length = bytes.get(at..).and_then(<[u8]>::first_chunk).ok_or_else(short)?;
        (u32::from_le_bytes(*length) as usize, at + 4)
    };
    let (header, values) = bytes[start..].split_at_checked(length).ok_or_else(short)?;
    let header = String::from_utf8_lossy(header);
    let field = |key: &str, end: char| {
        let (_, rest) = header.split_once(key)?;
        rest.trim_start().split_once(end).map(|(value, _)| value.trim().to_owned())
    };
    let kind = field("'descr':", ',').unwrap_or_default();
    if !["'|u1'", "'<u1'", "'>u1'", "'u1'"].contains(&kind.as_str()) {
        return Err(format!("expected an image of u8 values, got {kind}"));
    }
    if field("'fortran_order':", ',').as_deref() != Some("False") {
        return Err("expected an image in C order, got Fortran order".to_owned());
    }
    let shape = field("'shape': (", ')').unwrap_or_default();
    let sides: Result<Vec<u32>, _> =
        shape.split(',').map(str::trim).filter(|side| !side.is_empty()).map(str::parse).collect();
    let sides = sides.unwrap_or_default();
    let (axes, width, height) = match sides[..] {
        [3, h, w] | [1, 3, h, w] => (Axes::ChannelsFirst, w, h),
        [h, w, 3] | [1, h, w, 3] => (Axes::ChannelsLast, w, h),
        [h, w] | [1, h, w] | [h, w, 1] | [1, 1, h, w] | [1, h, w, 1] => (Axes::Gray, w, h),
        _ => {
            return Err(format!("expected an image of [3, H, W], [H, W, 3] or [H, W], got ({shape})"));
        }
    };
    let count = sides.iter().try_fold(1usize, |count, &side| count.checked_mul(side as usize));
    if width == 0 || height == 0 || count != Some(values.len()) {
        return Err(format!("expected the values of ({shape}), got {} bytes", values.len()));
    }
    Ok((axes, [width, height], values))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// An array as `numpy.save` writes it.
    fn npy(kind: &str, order: &str, shape: &str, values: &[u8]) -> Vec<u8> {
        let header = format!("{{'descr': '{kind}', 'fortran_order': {order}, 'shape': ({shape}), }}\n");
        let length = (header.len() as u16).to_le_bytes();
        [MAGIC, &[1, 0], &length, header.as_bytes(), values].concat()
    }

    #[test]
    fn arrays_of_every_layout_are_images() {
        let values: Vec<u8> = (0..6).collect();
        for (shape, expected) in [
            ("1, 3, 1, 2", [[0, 2, 4], [1, 3, 5]]),
            ("3, 1, 2", [[0, 2, 4], [1, 3, 5]]),
            ("1, 2, 3", [[0, 1, 2], [3, 4, 5]]),
            ("1, 1, 2, 3", [[0, 1, 2], [3, 4, 5]]),
        ] {
            let file = npy("|u1", "False", shape, &values);
            let image = decode(&file).unwrap();
            assert_eq!(image.pixels().map(|pixel| pixel.0).collect::<Vec<_>>(), expected, "{shape}");
            assert_eq!(dimensions(&file).unwrap(), [2, 1]);
        }
        assert_eq!(decode(&npy("|u1", "False", "1, 2", &[7, 9])).unwrap().into_raw(), [7, 7, 7, 9, 9, 9]);
    }

    #[test]
    fn other_arrays_are_refused() {
        for (file, expected) in [
            (npy("<f4", "False", "3, 1, 2", &[0; 24]), "expected an image of u8 values, got '<f4'"),
            (npy("|u1", "True", "3, 1, 2", &[0; 6]), "expected an image in C order, got Fortran order"),
            (
                npy("|u1", "False", "6,", &[0; 6]),
                "expected an image of [3, H, W], [H, W, 3] or [H, W], got (6,)",
            ),
            (npy("|u1", "False", "3, 4000000000, 4000000000", &[0]), "expected the values of ("),
            (npy("|u1", "False", "3, 1, 2", &[0; 6])[..20].to_vec(), "expected a whole .npy"),
            (MAGIC.to_vec(), "expected a whole .npy"),
        ] {
            let message = decode(&file).unwrap_err();
            assert!(message.starts_with(expected), "{message}");
        }
    }
}
