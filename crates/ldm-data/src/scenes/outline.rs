//! Outlines of the shapes: paths inside the unit disc, y downwards.

use std::f32::consts::{PI, TAU};

use tiny_skia::{FillRule, Path, PathBuilder, Transform};

use super::Shape;

/// Even-odd, for the hole of the ring.
pub(crate) const FILL_RULE: FillRule = FillRule::EvenOdd;

/// Outline of `shape`, rotated by `tilt` degrees, scaled by `radius` and moved to `center`.
pub(crate) fn outline(shape: Shape, center: [f32; 2], radius: f32, tilt: f32) -> Path {
    let place = Transform::from_rotate(tilt).post_scale(radius, radius).post_translate(center[0], center[1]);
    unit(shape).transform(place).expect("a shape of finite size")
}

fn unit(shape: Shape) -> Path {
    match shape {
        Shape::Circle => PathBuilder::from_circle(0., 0., 0.92),
        Shape::Square => polygon(&[[-0.76, -0.76], [0.76, -0.76], [0.76, 0.76], [-0.76, 0.76]]),
        Shape::Triangle => polygon(&[[0., -0.88], [0.92, 0.7], [-0.92, 0.7]]),
        Shape::Star => star(),
        Shape::Heart => heart(),
        Shape::Ring => ring(),
        Shape::Cross => cross(0.96, 0.3),
        Shape::Diamond => polygon(&[[0., -1.], [0.68, 0.], [0., 1.], [-0.68, 0.]]),
        Shape::Moon => moon(),
        Shape::Arrow => polygon(&[
            [-0.95, -0.26],
            [0.08, -0.26],
            [0.08, -0.76],
            [0.97, 0.],
            [0.08, 0.76],
            [0.08, 0.26],
            [-0.95, 0.26],
        ]),
    }
    .expect("a shape has an outline")
}

fn polygon(points: &[[f32; 2]]) -> Option<Path> {
    let mut path = PathBuilder::new();
    path.move_to(points[0][0], points[0][1]);
    points[1..].iter().for_each(|point| path.line_to(point[0], point[1]));
    path.close();
    path.finish()
}

fn star() -> Option<Path> {
    let points: Vec<_> = (0..10)
        .map(|k| {
            let radius = if k % 2 == 0 { 1. } else { 0.44 };
            let (sin, cos) = (k as f32 * TAU / 10.).sin_cos();
            // Moved down a little: a star reaches higher than it reaches low.
            [radius * sin, 0.05 - radius * cos]
        })
        .collect();
    polygon(&points)
}

fn heart() -> Option<Path> {
    let mut path = PathBuilder::new();
    path.move_to(0., 0.92);
    path.cubic_to(-0.42, 0.5, -0.96, 0.16, -0.96, -0.34);
    path.cubic_to(-0.96, -0.98, -0.2, -1.0, 0., -0.42);
    path.cubic_to(0.2, -1.0, 0.96, -0.98, 0.96, -0.34);
    path.cubic_to(0.96, 0.16, 0.42, 0.5, 0., 0.92);
    path.close();
    path.finish()
}

fn ring() -> Option<Path> {
    let mut path = PathBuilder::new();
    path.push_circle(0., 0., 0.96);
    path.push_circle(0., 0., 0.5);
    path.finish()
}

fn cross(long: f32, wide: f32) -> Option<Path> {
    let corner = [[wide, -long], [wide, -wide], [long, -wide]];
    // A quarter turn takes (x, y) to (-y, x).
    let mut points = Vec::new();
    let mut quarter = corner;
    for _ in 0..4 {
        points.extend(quarter);
        quarter = quarter.map(|[x, y]| [-y, x]);
    }
    polygon(&points)
}

/// A disc without a disc to its right: two arcs between the same two cusps.
fn moon() -> Option<Path> {
    let (outer, inner, shift) = (0.96f32, 0.78f32, 0.5f32);
    // The cusps are where the two circles meet.
    let x = (outer * outer - inner * inner + shift * shift) / (2. * shift);
    let y = (outer * outer - x * x).sqrt();
    let (out, back) = (y.atan2(x), y.atan2(x - shift));
    let steps = 60;
    let along = |from: f32, to: f32, k: i32| from + (to - from) * k as f32 / steps as f32;
    let mut points = Vec::new();
    for k in 0..=steps {
        let (sin, cos) = along(out, TAU - out, k).sin_cos();
        points.push([outer * cos, outer * sin]);
    }
    for k in 1..steps {
        let (sin, cos) = along(TAU - back, back, k).sin_cos();
        points.push([shift + inner * cos, inner * sin]);
    }
    // Centered in its bounding box, and rotated by 20 degrees.
    let middle = (x - outer) / 2.;
    let (sin, cos) = (-PI / 9.).sin_cos();
    let rotated: Vec<_> =
        points.iter().map(|[x, y]| [(x - middle) * cos - y * sin, (x - middle) * sin + y * cos]).collect();
    polygon(&rotated)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shapes_keep_to_their_disc_and_are_about_as_large() {
        for &shape in Shape::ALL {
            let bounds = unit(shape).compute_tight_bounds().unwrap();
            let longest = bounds.width().max(bounds.height());
            assert!((1.5..=2.0).contains(&longest), "{}: {bounds:?}", shape.word());
            let reach = unit(shape).points().iter().map(|p| p.x.hypot(p.y)).fold(0., f32::max);
            // Control points of curves are outside of the outline.
            let curved = matches!(shape, Shape::Circle | Shape::Ring | Shape::Heart);
            assert!(reach <= if curved { 1.4 } else { 1.16 }, "{}: {reach}", shape.word());
        }
    }
}
