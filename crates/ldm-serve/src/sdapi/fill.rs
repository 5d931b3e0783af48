//! Colors under a mask from those around it.

use image::{GrayImage, Rgb, RgbImage};

/// A level of a pyramid: sums of colors, and of the share that is known.
struct PyramidLevel {
    width: u32,
    height: u32,
    pixels: Vec<[f32; 4]>,
}

/// The image, where the mask is above 0 with the colors around it: the nearer, the more a color counts. A pyramid of means of
/// the known pixels is filled from its top, at which every pixel is known.
pub(crate) fn filled(image: &RgbImage, mask: &GrayImage) -> RgbImage {
    let known = image.pixels().zip(mask.pixels()).map(|(color, mask)| {
        let [r, g, b] = color.0.map(f32::from);
        if mask.0[0] > 0 { [0.; 4] } else { [r, g, b, 1.] }
    });
    let mut levels =
        vec![PyramidLevel { width: image.width(), height: image.height(), pixels: known.collect() }];
    while let Some(last) = levels.last().filter(|level| level.width > 1 || level.height > 1) {
        levels.push(last.halved());
    }
    let mut above: Option<PyramidLevel> = None;
    for mut level in levels.into_iter().rev() {
        for y in 0..level.height {
            for x in 0..level.width {
                let at = (y * level.width + x) as usize;
                let [r, g, b, share] = level.pixels[at];
                level.pixels[at] = match &above {
                    _ if share > 0. => [r / share, g / share, b / share, 1.],
                    Some(above) => above.between(x, y),
                    // No pixel is known.
                    None => [127., 127., 127., 1.],
                };
            }
        }
        above = Some(level);
    }
    let filled = above.expect("at least the image");
    let colors = filled.pixels.iter().map(|[r, g, b, _]| Rgb([*r, *g, *b].map(|value| value.round() as u8)));
    let mut result = image.clone();
    for ((pixel, color), mask) in result.pixels_mut().zip(colors).zip(mask.pixels()) {
        if mask.0[0] > 0 {
            *pixel = color;
        }
    }
    result
}

impl PyramidLevel {
    fn halved(&self) -> Self {
        let (width, height) = (self.width.div_ceil(2), self.height.div_ceil(2));
        let mut pixels = vec![[0.; 4]; (width * height) as usize];
        for (index, pixel) in self.pixels.iter().enumerate() {
            let (x, y) = (index as u32 % self.width / 2, index as u32 / self.width / 2);
            let sum = &mut pixels[(y * width + x) as usize];
            sum.iter_mut().zip(pixel).for_each(|(sum, value)| *sum += value);
        }
        Self { width, height, pixels }
    }

    /// The colors at a pixel of the level below, bilinearly.
    fn between(&self, x: u32, y: u32) -> [f32; 4] {
        // Pixel centers: x of the level below is x / 2 - 1/4 here.
        let axis = |at: u32, count: u32| {
            let near = at / 2;
            let far = if at.is_multiple_of(2) { near.saturating_sub(1) } else { (near + 1).min(count - 1) };
            [(near, 0.75), (far, 0.25)]
        };
        let mut mixed = [0.; 4];
        for (y, down) in axis(y, self.height) {
            for (x, across) in axis(x, self.width) {
                let pixel = self.pixels[(y * self.width + x) as usize];
                mixed.iter_mut().zip(pixel).for_each(|(sum, value)| *sum += value * down * across);
            }
        }
        mixed
    }
}

#[cfg(test)]
mod tests {
    use image::Luma;

    use super::*;

    #[test]
    fn the_colors_around_a_mask_fill_it() {
        let image = RgbImage::from_fn(13, 7, |x, _| if x < 6 { Rgb([200, 0, 0]) } else { Rgb([0, 0, 100]) });
        let mask =
            GrayImage::from_fn(13, 7, |x, y| Luma([u8::from((2..11).contains(&x) && (1..6).contains(&y))]));
        let result = filled(&image, &mask);
        for (x, y, color) in result.enumerate_pixels() {
            if mask.get_pixel(x, y).0[0] == 0 {
                assert_eq!(color, image.get_pixel(x, y));
            }
            // Convex: nothing but mixtures of both.
            assert!(
                color.0[1] == 0 && f32::from(color.0[0]) / 2. + f32::from(color.0[2]) <= 101.,
                "{color:?}"
            );
        }
        assert!(result.get_pixel(2, 3).0[0] > result.get_pixel(10, 3).0[0]);
        let all = GrayImage::from_pixel(13, 7, Luma([255]));
        assert_eq!(*filled(&image, &all).get_pixel(5, 5), Rgb([127; 3]));
    }
}
