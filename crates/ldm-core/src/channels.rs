//! Channels of images: gray, gray and alpha, RGB, RGBA.

use tch::{Kind, Tensor};

use crate::{Error, Result};

/// Weights of red and blue in gray; green has the rest (ITU-R BT.601, as PIL's mode `L`).
const RED: f64 = 0.299;
const BLUE: f64 = 0.114;

/// Checks that pixels of this number of channels are an image: 1 (gray), 2 (gray and alpha), 3 (RGB) or 4 (RGBA).
///
/// # Errors
/// [`Error::Invalid`] naming `key`.
pub fn check(key: &str, channels: i64) -> Result<()> {
    if (1..=4).contains(&channels) {
        return Ok(());
    }
    Err(Error::invalid(format!(
        "{key}: expected 1 (gray), 2 (gray and alpha), 3 (RGB) or 4 (RGBA) channels, got {channels}"
    )))
}

/// True if pixels of this number of channels have an alpha channel, the last one.
pub fn has_alpha(channels: i64) -> bool {
    channels % 2 == 0
}

/// Converts images to another number of channels, as PIL's `convert` but unrounded: gray is the luma of RGB, a new alpha
/// channel is opaque, and a channel that is not asked for is dropped.
///
/// # Shapes
/// - `images`: `[B, C, H, W]` in `[-1, 1]`, where 1 is opaque; returns `[B, channels, H, W]`
///
/// # Panics
/// When C or `channels` is not 1 to 4.
pub fn convert(images: &Tensor, channels: i64) -> Tensor {
    let from = images.size()[1];
    assert!(
        (1..=4).contains(&from) && (1..=4).contains(&channels),
        "1 to 4 channels, from {from} to {channels}"
    );
    if from == channels {
        return images.shallow_clone();
    }
    let color = images.narrow(1, 0, if from < 3 { 1 } else { 3 });
    let color = match (from < 3, channels < 3) {
        (true, false) => color.expand([-1, 3, -1, -1], false),
        (false, true) => {
            let [red, green, blue] = [0, 1, 2].map(|channel| color.narrow(1, channel, 1));
            // Exact for gray pixels, unlike a weighted sum.
            &green + (red - &green) * RED + (blue - &green) * BLUE
        }
        _ => color,
    };
    match (has_alpha(from), has_alpha(channels)) {
        (_, false) => color,
        (true, true) => Tensor::cat(&[color, images.narrow(1, from - 1, 1)], 1),
        (false, true) => {
            let opaque = images.narrow(1, 0, 1).ones_like();
            Tensor::cat(&[color, opaque], 1)
        }
    }
}

/// Shows images as RGB: gray in three equal channels, and an alpha channel over white.
///
/// # Shapes
/// - `images`: `[B, C, H, W]` in `[-1, 1]`; returns `[B, 3, H, W]`
///
/// # Panics
/// When C is not 1 to 4.
pub fn shown(images: &Tensor) -> Tensor {
    let color = convert(images, 3);
    let channels = images.size()[1];
    if !has_alpha(channels) {
        return color;
    }
    let opacity = (images.narrow(1, channels - 1, 1).clamp(-1., 1.) + 1.) * 0.5;
    (color - 1.) * opacity + 1.
}

/// Colors label maps: every label has a hue of its own.
///
/// # Shapes
/// - `maps`: `[B, K, H, W]`, of any scores; returns `[B, 3, H, W]` in `[-1, 1]`, by the highest channel of each pixel
pub fn label_colors(maps: &Tensor) -> Tensor {
    let labels = maps.argmax(1, true).to_kind(Kind::Float); // [B, 1, H, W]
    // Steps of the golden ratio keep the hues of any number of labels apart.
    let turn = labels * (0.618_033_988_75 * std::f64::consts::TAU);
    let channels = [0., 1., 2.].map(|third| (&turn + third * std::f64::consts::TAU / 3.).cos());
    Tensor::cat(&channels, 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pixel(values: &[f32]) -> Tensor {
        Tensor::from_slice(values).view([1, -1, 1, 1])
    }

    #[track_caller]
    fn check_pixel(from: &[f32], to: &[f32]) {
        assert_eq!(convert(&pixel(from), to.len() as i64), pixel(to));
    }

    #[test]
    fn gray_and_alpha_are_converted_both_ways() {
        check_pixel(&[0.3], &[0.3, 0.3, 0.3]);
        check_pixel(&[0.3], &[0.3, 1.]);
        check_pixel(&[0.3, -1.], &[0.3, 0.3, 0.3, -1.]);
        check_pixel(&[0.1, 0.1, 0.1], &[0.1]);
        check_pixel(&[0.1, 0.1, 0.1, 0.5], &[0.1, 0.5]);
        check_pixel(&[0.1, 0.2, 0.4, 0.5], &[0.1, 0.2, 0.4]);
        check_pixel(&[1., 1., 1.], &[1., 1.]);
    }

    #[test]
    fn gray_is_the_luma_of_pil() {
        // PIL: Image.new("RGB", (1, 1), (200, 30, 90)).convert("L") is 88.
        let rgb = [200., 30., 90.].map(|value: f32| value / 127.5 - 1.);
        let gray = (convert(&pixel(&rgb), 1).double_value(&[0, 0, 0, 0]) + 1.) * 127.5;
        assert_eq!(gray.round(), 88.);
    }

    #[test]
    fn transparent_pixels_are_shown_white() {
        assert_eq!(shown(&pixel(&[-1., -1., -1., -1.])), pixel(&[1., 1., 1.]));
        assert_eq!(shown(&pixel(&[-0.5, 1.])), pixel(&[-0.5, -0.5, -0.5]));
        assert_eq!(shown(&pixel(&[0.25])), pixel(&[0.25, 0.25, 0.25]));
    }

    #[test]
    fn labels_have_colors_of_their_own() {
        let maps = Tensor::eye(9, (Kind::Float, tch::Device::Cpu)).view([1, 9, 9, 1]);
        let colors = label_colors(&maps).squeeze(); // [3, 9]
        for (one, other) in (0..9).flat_map(|one| (0..one).map(move |other| (one, other))) {
            let far = (colors.select(1, one) - colors.select(1, other)).abs().max().double_value(&[]);
            assert!(far > 0.1, "{one} and {other} differ by {far}");
        }
    }

    #[test]
    fn other_numbers_of_channels_are_no_image() {
        assert!((1..=4).all(|channels| check("out_ch", channels).is_ok()));
        let message = check("ddconfig.out_ch", 12).unwrap_err().to_string();
        assert!(message.starts_with("ddconfig.out_ch: expected 1 (gray)"), "{message}");
        assert!(message.ends_with("got 12"), "{message}");
    }
}
