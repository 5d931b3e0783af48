//! Colors of a surface: plain, fading, striped, checked or dotted, antialiased at any size.

use super::words::{Fill, Rgb, Texture};

/// A surface: two colors and the pattern that mixes them.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Paint {
    pub(crate) base: Rgb,
    pub(crate) second: Rgb,
    pub(crate) pattern: Pattern,
    /// Origin of the pattern, in image sizes.
    pub(crate) origin: [f32; 2],
    /// Rotation of the pattern, in radians.
    pub(crate) angle: f32,
}

/// Patterns; lengths are in image sizes.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) enum Pattern {
    Plain,
    Fading,
    Stripes { period: f32 },
    Checks { period: f32 },
    Dots { period: f32, radius: f32 },
}

impl Pattern {
    pub(crate) fn of_texture(texture: Texture) -> Self {
        match texture {
            Texture::Plain => Self::Plain,
            Texture::Fading => Self::Fading,
            Texture::Striped => Self::Stripes { period: 0.2 },
            Texture::Checked => Self::Checks { period: 0.25 },
        }
    }

    pub(crate) fn of_fill(fill: Fill) -> Self {
        match fill {
            Fill::Plain => Self::Plain,
            Fill::Striped => Self::Stripes { period: 0.125 },
            Fill::Dotted => Self::Dots { period: 0.125, radius: 0.036 },
        }
    }
}

impl Paint {
    /// Color at `point`, averaged over a pixel of width `pixel` (both in image sizes).
    pub(crate) fn at(&self, point: [f32; 2], pixel: f32) -> Rgb {
        if self.pattern == Pattern::Plain {
            return self.base;
        }
        let (sin, cos) = self.angle.sin_cos();
        let [x, y] = [point[0] - self.origin[0], point[1] - self.origin[1]];
        let [u, v] = [x * cos + y * sin, y * cos - x * sin];
        let share = match self.pattern {
            Pattern::Plain => 0.,
            // The origin is the center of the image, whose half diagonal is 0.71.
            Pattern::Fading => (u / 1.42 + 0.5).clamp(0., 1.),
            Pattern::Stripes { period } => wave(u / period, pixel / period),
            Pattern::Checks { period } => {
                let [a, b] = [wave(u / period, pixel / period), wave(v / period, pixel / period)];
                a + b - 2. * a * b
            }
            Pattern::Dots { period, radius } => {
                let off = |t: f32| (t / period - (t / period).round()) * period;
                ((radius - off(u).hypot(off(v))) / pixel + 0.5).clamp(0., 1.)
            }
        };
        blend(self.base, self.second, share)
    }
}

/// Mixes `share` of `b` into `a`.
pub(crate) fn blend(a: Rgb, b: Rgb, share: f32) -> Rgb {
    [0, 1, 2].map(|k| a[k] + (b[k] - a[k]) * share)
}

/// Second color of a pattern on an object: lighter on a dark one, darker on a light one.
pub(crate) fn shade(base: Rgb) -> Rgb {
    let brightness = 0.299 * base[0] + 0.587 * base[1] + 0.114 * base[2];
    if brightness > 150. { blend(base, [0.; 3], 0.28) } else { blend(base, [255.; 3], 0.42) }
}

/// Second color of a background: near the first, so that objects stand out from both.
pub(crate) fn tint(base: Rgb, fading: bool) -> Rgb {
    let dark = base[1] < 128.;
    match (dark, fading) {
        (true, true) => blend(base, [255.; 3], 0.22),
        (true, false) => blend(base, [255.; 3], 0.1),
        (false, true) => blend(base, [255.; 3], 0.75),
        (false, false) => blend(base, [0.; 3], 0.07),
    }
}

/// A square wave of period 1 that is 1 on its first half, averaged over `width`.
fn wave(t: f32, width: f32) -> f32 {
    let integral = |t: f32| t.floor() * 0.5 + (t - t.floor()).min(0.5);
    (integral(t + width / 2.) - integral(t - width / 2.)) / width
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_wave_is_sharp_for_small_pixels_and_gray_for_large_ones() {
        assert!((wave(0.25, 0.01) - 1.).abs() < 1e-4 && wave(0.75, 0.01).abs() < 1e-4);
        assert!((wave(0.5, 0.02) - 0.5).abs() < 1e-4, "half of each at an edge");
        assert!((wave(0.3, 8.) - 0.5).abs() < 1e-4);
        assert!((wave(-0.75, 0.01) - 1.).abs() < 1e-4);
    }
}
