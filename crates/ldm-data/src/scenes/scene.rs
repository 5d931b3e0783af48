//! One scene: objects and background, before anything is drawn.

use ldm_core::LayoutBox;

use super::outline::outline;
use super::words::{Color, Fill, Ground, Place, Shape, Size, Texture};
use crate::rng::Rng;

/// Least distance of the discs of two objects, relative to the sum of their radii. Corners reach past a disc by a
/// tenth.
const CLEARANCE: f64 = 1.1;
/// Least distance of an object's disc from the border.
const MARGIN: f64 = 0.035;

/// A background and the objects in front of it, the main one first.
#[derive(Debug, Clone, PartialEq)]
pub struct Scene {
    /// Background.
    pub background: Background,
    /// Objects; no two overlap, and the first of several is the largest.
    pub objects: Vec<Object>,
}

/// Background of a scene.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Background {
    /// Color.
    pub ground: Ground,
    /// Texture.
    pub texture: Texture,
    /// Angle of the texture, in degrees.
    pub angle: f64,
}

/// Object of a scene.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Object {
    /// Shape.
    pub shape: Shape,
    /// Color.
    pub color: Color,
    /// Size, in a word.
    pub size: Size,
    /// Fill.
    pub fill: Fill,
    /// Place, in words.
    pub place: Place,
    /// Center, in image sizes from the top left.
    pub center: [f64; 2],
    /// Radius of its disc, in image sizes.
    pub radius: f64,
    /// Rotation, in degrees.
    pub tilt: f64,
}

impl Scene {
    /// Draws a random scene of `count` objects, none smaller than `smallest`; the first has the shape `main`.
    pub(crate) fn random(rng: &mut Rng, main: Shape, count: usize, smallest: Size) -> Self {
        // Nearly every draw succeeds at once; the few whose objects have no room are drawn again.
        loop {
            let background = Background {
                ground: *rng.pick(Ground::ALL),
                texture: *rng.pick(Texture::ALL),
                angle: *rng.pick(&[0., 45., 90., 135.]),
            };
            if let Some(objects) = objects(rng, background.ground, main, count, smallest) {
                return Self { background, objects };
            }
        }
    }

    /// Labeled boxes of the objects.
    pub fn boxes(&self) -> Vec<LayoutBox> {
        self.objects
            .iter()
            .map(|object| LayoutBox { class: object.shape as i64, rect: object.extent() })
            .collect()
    }
}

impl Object {
    /// Exact extent `[x0, y0, width, height]` of the drawn object, in image sizes.
    pub fn extent(&self) -> [f64; 4] {
        let bounds = self.outline(1.).compute_tight_bounds().expect("an outline has an extent");
        [bounds.x(), bounds.y(), bounds.width(), bounds.height()].map(f64::from)
    }

    /// Outline in an image of `side` pixels.
    pub(crate) fn outline(&self, side: f32) -> tiny_skia::Path {
        let center = self.center.map(|x| x as f32 * side);
        outline(self.shape, center, self.radius as f32 * side, self.tilt as f32)
    }

    fn clears(&self, other: &Self) -> bool {
        let apart = (self.center[0] - other.center[0]).hypot(self.center[1] - other.center[1]);
        apart >= CLEARANCE * (self.radius + other.radius)
    }
}

fn objects(rng: &mut Rng, ground: Ground, main: Shape, count: usize, smallest: Size) -> Option<Vec<Object>> {
    let colors: Vec<_> = Color::ALL.iter().copied().filter(|&color| ground.shows(color)).collect();
    let sizes = &Size::ALL[smallest as usize..];
    // Others are smaller than the main one, so that the first object of a caption is the most prominent.
    let largest = *rng.pick(if count == 1 { sizes } else { &sizes[1..] });
    let mut objects = vec![object(rng, main, largest, &colors)];
    for _ in 1..count {
        let smaller = sizes.iter().take_while(|size| **size < largest).count();
        let size = if smaller > 1 { *rng.pick(&sizes[..smaller]) } else { sizes[0] };
        let next = (0..40).find_map(|_| {
            let shape = *rng.pick(Shape::ALL);
            let next = object(rng, shape, size, &colors);
            let fits = objects.iter().all(|other| {
                next.clears(other)
                    && next.place != other.place
                    && (next.shape, next.color) != (other.shape, other.color)
            });
            fits.then_some(next)
        })?;
        objects.push(next);
    }
    Some(objects)
}

fn object(rng: &mut Rng, shape: Shape, size: Size, colors: &[Color]) -> Object {
    let radius = match size {
        Size::Small => rng.between(0.125, 0.145),
        Size::Medium => rng.between(0.185, 0.215),
        Size::Large => rng.between(0.28, 0.315),
    };
    let place = *rng.pick(Place::ALL);
    let center = place.cell().map(|third| {
        let near = rng.between(radius + MARGIN, (radius + MARGIN + 0.01).max(0.34));
        match third {
            0 => near,
            1 => rng.between(0.46, 0.54),
            _ => 1. - near,
        }
    });
    // A pattern on a small object would blur in a small image.
    let fill = if size == Size::Small { Fill::Plain } else { *rng.pick(Fill::ALL) };
    Object { shape, color: *rng.pick(colors), size, fill, place, center, radius, tilt: rng.between(-7., 7.) }
}
