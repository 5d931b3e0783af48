//! Masks of `img2img`: blur, the part around them, and putting back what was sampled.

use image::{DynamicImage, GrayImage, Luma, Rgb, RgbImage, imageops};
use ldm_core::image as images;
use ldm_data::{Interpolation, resize};

use crate::{ErrorKind, ServeError};

/// A rectangle of an image, in pixels.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Area {
    pub(crate) x: u32,
    pub(crate) y: u32,
    pub(crate) width: u32,
    pub(crate) height: u32,
}

/// An image into which a sampled one is put.
#[derive(Debug, Clone)]
pub(crate) struct Paste {
    pub(crate) image: RgbImage,
    /// The share of the sampled image, of 255.
    pub(crate) share: GrayImage,
    /// The part of the image that was sampled; all of it where none.
    pub(crate) area: Option<Area>,
}

/// A Gaussian blur of `sigma` pixels along x and y, with as many taps as in the web UI.
pub(crate) fn blurred(mask: &GrayImage, sigma: [u32; 2]) -> GrayImage {
    let (width, height) = mask.dimensions();
    let (wide, high) = (width as usize, height as usize);
    let values: Vec<f32> = mask.iter().map(|value| f32::from(*value)).collect();
    let turned = down(&transposed(&values, wide, high), high, wide, sigma[0]);
    let values = down(&transposed(&turned, high, wide), wide, high, sigma[1]);
    let bytes = values.iter().map(|value| value.round() as u8).collect();
    GrayImage::from_raw(width, height, bytes).expect("one byte a pixel")
}

/// The blur of each column: whole rows are added, which processors do many values at a time.
fn down(values: &[f32], width: usize, height: usize, sigma: u32) -> Vec<f32> {
    if sigma == 0 {
        return values.to_vec();
    }
    let radius = (2.5 * f64::from(sigma) + 0.5) as isize;
    let weight = |offset: isize| (-0.5 * (offset as f64 / f64::from(sigma)).powi(2)).exp();
    let sum: f64 = (-radius..=radius).map(weight).sum();
    let weights: Vec<_> = (-radius..=radius).map(|offset| (offset, (weight(offset) / sum) as f32)).collect();
    let mut blurred = vec![0.; values.len()];
    for (y, row) in blurred.chunks_exact_mut(width).enumerate() {
        for (offset, weight) in &weights {
            let at = y.saturating_add_signed(*offset).min(height - 1);
            let from = &values[at * width..(at + 1) * width];
            row.iter_mut().zip(from).for_each(|(sum, value)| *sum += weight * value);
        }
    }
    blurred
}

/// Columns as rows, in squares that stay in the cache.
fn transposed(values: &[f32], width: usize, height: usize) -> Vec<f32> {
    const SIDE: usize = 32;
    let mut turned = vec![0.; values.len()];
    for top in (0..height).step_by(SIDE) {
        for left in (0..width).step_by(SIDE) {
            for y in top..height.min(top + SIDE) {
                for x in left..width.min(left + SIDE) {
                    turned[x * height + y] = values[y * width + x];
                }
            }
        }
    }
    turned
}

/// The share of the sampled image: all inside the border of a blurred mask, less outside.
pub(crate) fn doubled(mask: &GrayImage) -> GrayImage {
    GrayImage::from_fn(mask.width(), mask.height(), |x, y| {
        Luma([mask.get_pixel(x, y).0[0].saturating_mul(2)])
    })
}

/// The part around a mask with `padding` pixels, extended to the ratio of `width` to `height` where the image has room; none
/// for a black mask.
pub(crate) fn around(mask: &GrayImage, padding: u32, width: u32, height: u32) -> Option<Area> {
    let lit = mask.enumerate_pixels().filter(|(_, _, value)| value.0[0] > 0);
    let bounds = lit.fold(None, |bounds: Option<[u32; 4]>, (x, y, _)| {
        let [left, top, right, bottom] = bounds.unwrap_or([x, y, x, y]);
        Some([left.min(x), top.min(y), right.max(x), bottom.max(y)])
    });
    let [left, top, right, bottom] = bounds?;
    let axis = |low: u32, high: u32, count: u32| {
        let low = low.saturating_sub(padding);
        (low, high.saturating_add(padding).saturating_add(1).min(count) - low)
    };
    let (x, wide) = axis(left, right, mask.width());
    let (y, high) = axis(top, bottom, mask.height());
    let ratio = f64::from(width) / f64::from(height);
    let grown = |start: u32, extent: u32, wanted: f64, count: u32| {
        let wanted = (wanted.round() as u32).clamp(extent, count);
        let start = start.saturating_sub((wanted - extent) / 2).min(count - wanted);
        (start, wanted)
    };
    let (x, wide, y, high) = if f64::from(wide) / f64::from(high) < ratio {
        let (x, wide) = grown(x, wide, f64::from(high) * ratio, mask.width());
        (x, wide, y, high)
    } else {
        let (y, high) = grown(y, high, f64::from(wide) / ratio, mask.height());
        (x, wide, y, high)
    };
    Some(Area { x, y, width: wide, height: high })
}

impl Paste {
    /// Bytes in memory.
    pub(crate) fn bytes(&self) -> usize {
        self.image.as_raw().len() + self.share.as_raw().len()
    }

    /// The whole image as a PNG, with `sampled` in it.
    ///
    /// # Errors
    /// For a PNG that cannot be read.
    pub(crate) fn paste(&self, sampled: &[u8], parameters: &str) -> Result<Vec<u8>, ServeError> {
        let sampled = images::decode(sampled)
            .map_err(|error| ServeError::new(ErrorKind::Internal, error.to_string()))?;
        let (width, height) = self.image.dimensions();
        let Area { x: left, y: top, width, height } = self.area.unwrap_or(Area { x: 0, y: 0, width, height });
        let sampled = if sampled.dimensions() == (width, height) {
            sampled
        } else {
            resize(&sampled, width, height, Interpolation::Lanczos)
        };
        let mut result = self.image.clone();
        for (x, y, color) in sampled.enumerate_pixels() {
            let (x, y) = (x + left, y + top);
            let share = u32::from(self.share.get_pixel(x, y).0[0]);
            let under = result.get_pixel(x, y).0;
            let mixed = [0, 1, 2].map(|channel| {
                let [over, under] = [color.0[channel], under[channel]].map(u32::from);
                ((over * share + under * (255 - share) + 127) / 255) as u8
            });
            result.put_pixel(x, y, Rgb(mixed));
        }
        Ok(images::png(&DynamicImage::from(result), &[("parameters", parameters)]))
    }
}

/// A part of a gray image.
pub(crate) fn part(image: &GrayImage, area: Area) -> GrayImage {
    imageops::crop_imm(image, area.x, area.y, area.width, area.height).to_image()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mask() -> GrayImage {
        GrayImage::from_fn(40, 30, |x, y| {
            Luma([if (10..20).contains(&x) && (8..12).contains(&y) { 255 } else { 0 }])
        })
    }

    #[test]
    fn a_blur_keeps_the_sum_and_ends_at_its_radius() {
        let soft = blurred(&mask(), [2, 2]);
        let sum = |image: &GrayImage| image.iter().map(|value| f64::from(*value)).sum::<f64>();
        assert!((sum(&soft) / sum(&mask()) - 1.).abs() < 0.01);
        assert_eq!(blurred(&mask(), [0, 0]), mask());
        // Five pixels: 2.5 sigma.
        assert!(soft.get_pixel(6, 10).0[0] > 0 && soft.get_pixel(4, 10).0[0] == 0);
        let across = blurred(&mask(), [2, 0]);
        assert!(across.get_pixel(8, 10).0[0] > 0 && across.get_pixel(15, 7).0[0] == 0);
        // At the border of the mask the sampled image counts in full.
        assert!(doubled(&blurred(&mask(), [1, 1])).get_pixel(10, 10).0[0] > 250);
    }

    #[test]
    fn the_part_around_a_mask_has_the_ratio_of_the_result() {
        let area = |padding, width, height| around(&mask(), padding, width, height).unwrap();
        assert_eq!(area(0, 64, 64), Area { x: 10, y: 5, width: 10, height: 10 });
        assert_eq!(area(2, 64, 32), Area { x: 7, y: 6, width: 16, height: 8 });
        assert_eq!(area(0, 10, 4), Area { x: 10, y: 8, width: 10, height: 4 });
        assert_eq!(area(100, 64, 64), Area { x: 0, y: 0, width: 40, height: 30 });
        assert_eq!(around(&GrayImage::new(5, 5), 3, 8, 8), None);
    }

    #[test]
    fn nothing_changes_outside_the_mask() {
        let image = RgbImage::from_fn(40, 30, |x, y| Rgb([x as u8, y as u8, 9]));
        let area = around(&mask(), 3, 32, 32);
        let paste = Paste { image: image.clone(), share: mask(), area };
        let sampled = images::png(&RgbImage::from_pixel(32, 32, Rgb([255, 0, 0])).into(), &[]);
        let result = images::decode(&paste.paste(&sampled, "a").unwrap()).unwrap();
        for (x, y, color) in result.enumerate_pixels() {
            let inside = mask().get_pixel(x, y).0[0] > 0;
            let want = if inside { Rgb([255, 0, 0]) } else { *image.get_pixel(x, y) };
            assert_eq!(*color, want, "{x}, {y}");
        }
    }

    #[test]
    fn the_blur_is_a_gaussian() {
        let mask =
            GrayImage::from_fn(37, 70, |x, y| Luma([if (9..20).contains(&x) && y < 41 { 255 } else { 7 }]));
        // Tap by tap, across and then down, which is slow.
        let tap = |at: u32, offset: i32, count: u32| at.saturating_add_signed(offset).min(count - 1);
        let weights = |sigma: f64, radius: i32| {
            let each: Vec<_> =
                (-radius..=radius).map(|at| (at, (-0.5 * (f64::from(at) / sigma).powi(2)).exp())).collect();
            let sum: f64 = each.iter().map(|(_, weight)| weight).sum();
            each.into_iter().map(move |(at, weight)| (at, weight / sum))
        };
        let blurred = blurred(&mask, [2, 3]);
        for (x, y, value) in blurred.enumerate_pixels() {
            let down: f64 = weights(3., 8)
                .map(|(below, down)| {
                    let row = tap(y, below, 70);
                    let across = weights(2., 5).map(|(beside, weight)| {
                        weight * f64::from(mask.get_pixel(tap(x, beside, 37), row).0[0])
                    });
                    down * across.sum::<f64>()
                })
                .sum();
            assert!((f64::from(value.0[0]) - down).abs() < 0.51, "{x}, {y}: {} and {down}", value.0[0]);
        }
    }
}
