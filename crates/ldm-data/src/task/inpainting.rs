//! Inpainting: random masks of strokes, boxes and borders.

use serde::{Deserialize, Serialize};
use tiny_skia::{FillRule, LineCap, LineJoin, Mask, Path, PathBuilder, Rect, Stroke, Transform};

use crate::rng::Rng;
use crate::source::paired_files::PairedFilesConfig;

/// Masks of an inpainting task.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct InpaintingConfig {
    /// Source of the masks.
    pub masks: Masks,
}

/// Source of masks. The first three are LaMa's (Suvorov et al. 2022, `configs/data_gen/random_*_256.yaml` of its
/// repository), whose lengths are scaled from its 256 pixels to the smaller side of the image; the paper of latent
/// diffusion trains on LaMa's masks. A mask of more than half the image is drawn again, as there.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(tag = "target", content = "params", rename_all = "snake_case", deny_unknown_fields)]
pub enum Masks {
    /// Four to fifty thin strokes.
    Thin,
    /// Four or five strokes, or one to five boxes.
    Medium,
    /// One to five thick strokes, or one to three boxes.
    Thick,
    /// Borders: each side with a probability of a half, one at least, to a quarter of the image deep.
    Outpainting,
    /// One of the four above, all equally likely.
    #[default]
    Mixed,
    /// Mask files: PNGs next to the images, white (at least 128 of 255) in the region to fill, or, where a file has
    /// transparent pixels, opaque there.
    Files(PairedFilesConfig),
}

/// The kinds of random masks.
const DRAWN: [Masks; 4] = [Masks::Thin, Masks::Medium, Masks::Thick, Masks::Outpainting];
/// Largest masked share of an image.
const MOST: f64 = 0.5;
/// Number of draws before a fixed mask is taken; about two in three succeed at once.
const TRIES: usize = 64;

/// Strokes: their number, and their sizes in an image of 256 pixels.
struct Strokes {
    count: [u64; 2],
    longest: u64,
    widest: u64,
}

/// Boxes: their number, and their sides in an image of 256 pixels.
struct MaskBoxes {
    count: [u64; 2],
    side: [u64; 2],
    margin: u64,
}

impl Masks {
    /// Draws a mask `[H, W]` of 0 and 1 with at least one 1, which is filled in.
    pub(crate) fn draw(&self, width: u32, height: u32, rng: &mut Rng) -> Vec<u8> {
        let kind = if *self == Self::Mixed { rng.pick(&DRAWN) } else { self };
        for _ in 0..TRIES {
            let mask = kind.once(width, height, rng);
            let share = share(&mask);
            if share > 0. && share <= MOST {
                return mask;
            }
        }
        // The center, for an image so small that nothing fits.
        let quarter = |length: u32| (length / 4) as f32;
        let (x, y) = (quarter(width), quarter(height));
        let middle = Rect::from_xywh(x, y, (width as f32 / 2.).max(1.), (height as f32 / 2.).max(1.));
        filled(width, height, &[PathBuilder::from_rect(middle.expect("sides above 0"))])
    }

    fn once(&self, width: u32, height: u32, rng: &mut Rng) -> Vec<u8> {
        let (strokes, boxes) = match self {
            Self::Thin => (Strokes { count: [4, 50], longest: 40, widest: 10 }, None),
            Self::Medium => (
                Strokes { count: [4, 5], longest: 100, widest: 50 },
                Some(MaskBoxes { count: [1, 5], side: [10, 50], margin: 0 }),
            ),
            Self::Thick => (
                Strokes { count: [1, 5], longest: 200, widest: 100 },
                Some(MaskBoxes { count: [1, 3], side: [30, 150], margin: 10 }),
            ),
            Self::Outpainting | Self::Mixed | Self::Files(_) => return borders(width, height, rng),
        };
        // LaMa's probabilities, 1 to 0.3.
        let paths = match boxes {
            Some(boxes) if rng.unit() * 1.3 >= 1. => boxes.draw(width, height, rng),
            _ => strokes.draw(width, height, rng),
        };
        filled(width, height, &paths)
    }
}

impl Strokes {
    /// Each stroke takes one to five steps from a random point, rotated by a whole number of radians up to 3 each time.
    fn draw(&self, width: u32, height: u32, rng: &mut Rng) -> Vec<Path> {
        let scale = f64::from(width.min(height)) / 256.;
        let [fewest, most] = self.count;
        let mut paths = Vec::new();
        for number in 0..fewest + rng.below(most - fewest + 1) {
            let mut from = [width, height].map(|side| rng.below(u64::from(side)) as f64);
            for _ in 0..=rng.below(5) {
                let offset = 0.01 + rng.below(4) as f64;
                let angle = if number % 2 == 0 { std::f64::consts::TAU - offset } else { offset };
                let length = (10 + rng.below(self.longest)) as f64 * scale;
                let thick = (5 + rng.below(self.widest)) as f64 * scale;
                let to = [
                    (from[0] + length * angle.sin()).clamp(0., f64::from(width)),
                    (from[1] + length * angle.cos()).clamp(0., f64::from(height)),
                ];
                paths.extend(line(from, to, thick.max(1.)));
                from = to;
            }
        }
        paths
    }
}

impl MaskBoxes {
    fn draw(&self, width: u32, height: u32, rng: &mut Rng) -> Vec<Path> {
        let smaller = f64::from(width.min(height));
        let scale = smaller / 256.;
        let margin = self.margin as f64 * scale;
        let [least, most] = self.side.map(|side| (side as f64 * scale).min(smaller - 2. * margin));
        let [fewest, count] = self.count;
        (0..fewest + rng.below(count - fewest + 1))
            .filter_map(|_| {
                let (w, h) = (rng.between(least, most).round(), rng.between(least, most).round());
                let x = rng.between(margin, f64::from(width) - margin - w).round();
                let y = rng.between(margin, f64::from(height) - margin - h).round();
                let rect = Rect::from_xywh(x as f32, y as f32, w.max(1.) as f32, h.max(1.) as f32);
                rect.map(PathBuilder::from_rect)
            })
            .collect()
    }
}

/// Borders of 4 to 25 percent of the image. LaMa `saicinpainting/training/data/masks.py` `OutpaintingMaskGenerator`.
fn borders(width: u32, height: u32, rng: &mut Rng) -> Vec<u8> {
    let deep = |side: u32, rng: &mut Rng| {
        let side = f64::from(side);
        rng.between(0.04 * side, 0.25 * side).round().max(1.) as f32
    };
    let (w, h) = (width as f32, height as f32);
    let depths = [deep(width, rng), deep(height, rng), deep(width, rng), deep(height, rng)];
    let [left, top, right, bottom] = depths;
    let sides = [[0., 0., left, h], [0., 0., w, top], [w - right, 0., right, h], [0., h - bottom, w, bottom]];
    let mut chosen: Vec<usize> = (0..4).filter(|_| rng.unit() < 0.5).collect();
    if chosen.is_empty() {
        chosen.push(rng.below(4) as usize);
    }
    let rects = chosen.into_iter().filter_map(|side| {
        let [x, y, w, h] = sides[side];
        Rect::from_xywh(x, y, w, h).map(PathBuilder::from_rect)
    });
    filled(width, height, &rects.collect::<Vec<_>>())
}

/// A line with round ends.
fn line(from: [f64; 2], to: [f64; 2], width: f64) -> Option<Path> {
    let mut path = PathBuilder::new();
    path.move_to(from[0] as f32, from[1] as f32);
    path.line_to(to[0] as f32, to[1] as f32);
    let stroke = Stroke {
        width: width as f32,
        line_cap: LineCap::Round,
        line_join: LineJoin::Round,
        ..Stroke::default()
    };
    path.finish()?.stroke(&stroke, 1.)
}

/// Rasterizes the paths: 1 where the center of a pixel is inside.
fn filled(width: u32, height: u32, paths: &[Path]) -> Vec<u8> {
    let mut mask = Mask::new(width, height).expect("an image has pixels");
    for path in paths {
        mask.fill_path(path, FillRule::Winding, false, Transform::identity());
    }
    mask.data().iter().map(|&cover| u8::from(cover >= 128)).collect()
}

fn share(mask: &[u8]) -> f64 {
    mask.iter().map(|&value| f64::from(value)).sum::<f64>() / mask.len() as f64
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The mean share, and the sorted shares, of many masks.
    fn shares(masks: &Masks, width: u32, height: u32) -> (f64, Vec<f64>) {
        let mut shares: Vec<f64> =
            (0..400).map(|seed| share(&masks.draw(width, height, &mut Rng::of(&[seed])))).collect();
        shares.sort_by(f64::total_cmp);
        (shares.iter().sum::<f64>() / 400., shares)
    }

    #[test]
    fn a_mask_covers_more_than_nothing_and_at_most_half() {
        for masks in DRAWN.iter().chain([&Masks::Mixed]) {
            for (width, height) in [(256, 256), (64, 96), (16, 16), (5, 3)] {
                let (_, shares) = shares(masks, width, height);
                assert!(shares[0] > 0. && shares[399] <= 0.5, "{masks:?} {width}x{height}: {shares:?}");
            }
        }
    }

    #[test]
    fn thick_masks_cover_more_than_thin_ones_at_every_size() {
        for side in [256, 64] {
            let [thin, medium, thick, border] = [0, 1, 2, 3].map(|kind| shares(&DRAWN[kind], side, side).0);
            assert!((0.05..0.3).contains(&thin), "{thin}");
            assert!((0.05..0.3).contains(&medium), "{medium}");
            assert!(thick > thin && thick > medium && (0.1..0.4).contains(&thick), "{thick}");
            assert!((0.15..0.4).contains(&border), "{border}");
        }
    }

    #[test]
    fn masks_scale_with_the_image() {
        for masks in &DRAWN {
            let (large, small) = (shares(masks, 256, 256).0, shares(masks, 128, 128).0);
            assert!((large - small).abs() < 0.25 * large, "{masks:?}: {large} and {small}");
        }
    }

    #[test]
    fn every_pixel_is_masked_sometimes() {
        for masks in &DRAWN[..3] {
            let mut often = vec![0; 32 * 32];
            for seed in 0..600 {
                let mask = masks.draw(32, 32, &mut Rng::of(&[seed]));
                often.iter_mut().zip(mask).for_each(|(often, masked)| *often += u32::from(masked));
            }
            assert!(often.iter().all(|often| (6..400).contains(often)), "{masks:?}: {often:?}");
        }
    }
}
