//! Images in NumPy's `.npy`, as those of CelebA-HQ in taming-transformers (`data/base.py`, `NumpyPaths`).

use image::RgbImage;
use ldm_checkpoint::{decode_npy, npy_shape};
use tch::Kind;

/// Decodes an array of u8: `[3, H, W]`, `[H, W, 3]` or `[H, W]`, with or without a first axis of 1.
pub(crate) fn decode(bytes: &[u8]) -> Result<RgbImage, String> {
    let array = decode_npy(bytes)?;
    if array.kind() != Kind::Uint8 {
        return Err(format!("expected an image of u8 values, got {:?}", array.kind()));
    }
    let (axes, [width, height]) = layout(&array.size())?;
    let (w, h) = (i64::from(width), i64::from(height));
    let pixels = match axes {
        Axes::ChannelsFirst => array.view([3, h, w]).permute([1, 2, 0]),
        Axes::ChannelsLast => array.view([h, w, 3]),
        Axes::Gray => array.view([h, w, 1]).expand([h, w, 3], false),
    };
    let mut values = vec![0; (3 * h * w) as usize];
    let count = values.len();
    pixels.contiguous().copy_data(&mut values, count);
    Ok(RgbImage::from_raw(width, height, values).expect("3·H·W bytes"))
}

/// Reads width and height.
pub(crate) fn dimensions(bytes: &[u8]) -> Result<[u32; 2], String> {
    layout(&npy_shape(bytes)?).map(|(_, size)| size)
}

/// Layout of the values of an image.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Axes {
    /// `[3, H, W]`, also `[1, 3, H, W]`.
    ChannelsFirst,
    /// `[H, W, 3]`, also `[1, H, W, 3]`.
    ChannelsLast,
    /// `[H, W]`, also with a channel of 1.
    Gray,
}

/// Returns the layout, width and height of an array of `shape`.
fn layout(shape: &[i64]) -> Result<(Axes, [u32; 2]), String> {
    let (axes, width, height) = match *shape {
        [3, h, w] | [1, 3, h, w] => (Axes::ChannelsFirst, w, h),
        [h, w, 3] | [1, h, w, 3] => (Axes::ChannelsLast, w, h),
        [h, w] | [1, h, w] | [h, w, 1] | [1, 1, h, w] | [1, h, w, 1] => (Axes::Gray, w, h),
        _ => return Err(format!("expected an image of [3, H, W], [H, W, 3] or [H, W], got {shape:?}")),
    };
    match [width, height].map(u32::try_from) {
        [Ok(width @ 1..), Ok(height @ 1..)] => Ok((axes, [width, height])),
        _ => Err(format!("expected an image of at least one pixel, got {shape:?}")),
    }
}

#[cfg(test)]
mod tests {
    use ldm_checkpoint::NPY_MAGIC;

    use super::*;

    /// An array as `numpy.save` writes it.
    fn npy(kind: &str, order: &str, shape: &str, values: &[u8]) -> Vec<u8> {
        let header = format!("{{'descr': '{kind}', 'fortran_order': {order}, 'shape': ({shape}), }}\n");
        let length = (header.len() as u16).to_le_bytes();
        [NPY_MAGIC, &[1, 0], &length, header.as_bytes(), values].concat()
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
        let fortran = npy("|u1", "True", "1, 2, 3", &[0, 3, 1, 4, 2, 5]);
        assert_eq!(decode(&fortran).unwrap().into_raw(), [0, 1, 2, 3, 4, 5]);
    }

    #[test]
    fn other_arrays_are_refused() {
        for (file, expected) in [
            (npy("<f4", "False", "3, 1, 2", &[0; 24]), "expected an image of u8 values, got Float"),
            (
                npy("|u1", "False", "6,", &[0; 6]),
                "expected an image of [3, H, W], [H, W, 3] or [H, W], got [6]",
            ),
            (npy("|u1", "False", "3, 0, 2", &[]), "expected an image of at least one pixel, got [3, 0, 2]"),
            (npy("|u1", "False", "3, 4000000000, 4000000000", &[0]), "expected the shape of an array"),
            (npy("|u1", "False", "3, 1, 2", &[0; 6])[..20].to_vec(), "truncated .npy header"),
            (npy("|u1", "False", "3, 1, 2", &[0; 5]), "expected "),
            (NPY_MAGIC.to_vec(), "truncated .npy header"),
        ] {
            let message = decode(&file).unwrap_err();
            assert!(message.starts_with(expected), "{message}");
        }
    }
}
