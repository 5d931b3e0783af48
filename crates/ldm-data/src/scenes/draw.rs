//! Rasterization of scenes, at any size.

use tiny_skia::{Mask, Transform};

use super::outline::FILL_RULE;
use super::paint::{Paint, Pattern, blend, shade, tint};
use super::scene::{Object, Scene};
use super::words::Texture;

/// A rasterized scene.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Drawing {
    /// Side in pixels.
    pub side: u32,
    /// Red, green, blue of each pixel, row by row.
    pub pixels: Vec<u8>,
    /// Label of each pixel: 0 for the background, otherwise the number of the shape plus one. A pixel belongs to an
    /// object when at least half of it is covered.
    pub labels: Vec<u8>,
}

impl Scene {
    /// Draws the scene, `side` pixels wide and high; the same scene at every size.
    ///
    /// # Panics
    /// When `side` is 0.
    pub fn draw(&self, side: u32) -> Drawing {
        let count = (side * side) as usize;
        let mut surface: Vec<[f32; 3]> = Vec::with_capacity(count);
        let ground = self.ground();
        for index in 0..side * side {
            surface.push(ground.at(middle(index, side), 1. / side as f32));
        }
        let mut labels = vec![0; count];
        let mut mask = Mask::new(side, side).expect("an image has pixels");
        for object in &self.objects {
            mask.clear();
            mask.fill_path(&object.outline(side as f32), FILL_RULE, true, Transform::identity());
            let paint = object.paint();
            for index in 0..side * side {
                let cover = mask.data()[index as usize];
                if cover == 0 {
                    continue;
                }
                let pixel = &mut surface[index as usize];
                *pixel =
                    blend(*pixel, paint.at(middle(index, side), 1. / side as f32), f32::from(cover) / 255.);
                if cover >= 128 {
                    labels[index as usize] = object.shape as u8 + 1;
                }
            }
        }
        let pixels = surface.into_iter().flatten().map(|value| (value + 0.5) as u8).collect();
        Drawing { side, pixels, labels }
    }

    fn ground(&self) -> Paint {
        let base = self.background.ground.rgb();
        let texture = self.background.texture;
        Paint {
            base,
            second: tint(base, texture == Texture::Fading),
            pattern: Pattern::of_texture(texture),
            origin: [0.5, 0.5],
            angle: (self.background.angle as f32).to_radians(),
        }
    }
}

impl Object {
    fn paint(&self) -> Paint {
        let base = self.color.rgb();
        Paint {
            base,
            second: shade(base),
            pattern: Pattern::of_fill(self.fill),
            origin: self.center.map(|x| x as f32),
            // Stripes on an object are diagonal, so that they differ from those of the background.
            angle: (self.tilt as f32 + 30.).to_radians(),
        }
    }
}

/// Center of a pixel, in image sizes.
fn middle(index: u32, side: u32) -> [f32; 2] {
    [index % side, index / side].map(|k| (k as f32 + 0.5) / side as f32)
}
