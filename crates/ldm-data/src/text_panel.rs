//! Text drawn as an image, for captions and class names next to images.

use std::convert::Infallible;

use embedded_graphics::Drawable;
use embedded_graphics::Pixel;
use embedded_graphics::draw_target::DrawTarget;
use embedded_graphics::geometry::{OriginDimensions, Point, Size};
use embedded_graphics::mono_font::MonoTextStyle;
use embedded_graphics::mono_font::iso_8859_1::FONT_5X8;
use embedded_graphics::pixelcolor::BinaryColor;
use embedded_graphics::text::{Baseline, Text};
use image::{Rgb, RgbImage};

/// Width and height of a character, in pixels.
const CHARACTER: [u32; 2] = [5, 8];

/// A black text on white, wrapped at words and cut off with dots at the lower end. Characters outside of Latin-1 are
/// question marks.
pub(crate) fn text_panel(text: &str, width: u32, height: u32) -> RgbImage {
    let mut canvas = Canvas { image: RgbImage::from_pixel(width, height, Rgb([255; 3])), color: Rgb([0; 3]) };
    let (columns, rows) = ((width / CHARACTER[0]).max(1) as usize, (height / CHARACTER[1]).max(1) as usize);
    for (row, line) in wrapped(text, columns, rows).iter().enumerate() {
        canvas.write(line, [0, row as i32 * CHARACTER[1] as i32]);
    }
    canvas.image
}

/// Writes a line of text on an image, from the upper left corner `at`; what does not fit is cut off.
pub(crate) fn write_line(image: &mut RgbImage, line: &str, at: [i32; 2], color: Rgb<u8>) {
    let mut canvas = Canvas { image: std::mem::take(image), color };
    canvas.write(line, at);
    *image = canvas.image;
}

/// Breaks a text into at most `rows` lines of at most `columns` characters.
fn wrapped(text: &str, columns: usize, rows: usize) -> Vec<String> {
    let mut lines: Vec<String> = Vec::new();
    for paragraph in text.lines() {
        let mut line = String::new();
        for word in paragraph.split_whitespace() {
            let mut word: Vec<char> = word.chars().collect();
            let used = line.chars().count();
            if used > 0 && used + 1 + word.len() > columns {
                lines.push(std::mem::take(&mut line));
            } else if used > 0 {
                line.push(' ');
            }
            while word.len() > columns {
                lines.push(word.drain(..columns).collect());
            }
            line.extend(word);
        }
        lines.push(line);
    }
    if lines.len() > rows {
        lines.truncate(rows);
        let last = &mut lines[rows - 1];
        *last = last.chars().take(columns.saturating_sub(2)).chain("..".chars()).collect();
    }
    lines
}

/// An image to write on in one color.
struct Canvas {
    image: RgbImage,
    color: Rgb<u8>,
}

impl Canvas {
    fn write(&mut self, line: &str, [x, y]: [i32; 2]) {
        let style = MonoTextStyle::new(&FONT_5X8, BinaryColor::On);
        let text = Text::with_baseline(line, Point::new(x, y), style, Baseline::Top);
        // Drawing on an image does not fail.
        let _: Result<Point, Infallible> = text.draw(self);
    }
}

impl OriginDimensions for Canvas {
    fn size(&self) -> Size {
        Size::new(self.image.width(), self.image.height())
    }
}

impl DrawTarget for Canvas {
    type Color = BinaryColor;
    type Error = Infallible;

    fn draw_iter<I: IntoIterator<Item = Pixel<BinaryColor>>>(&mut self, pixels: I) -> Result<(), Infallible> {
        for Pixel(Point { x, y }, color) in pixels {
            let inside = (0..i64::from(self.image.width())).contains(&i64::from(x))
                && (0..i64::from(self.image.height())).contains(&i64::from(y));
            if color == BinaryColor::On && inside {
                self.image.put_pixel(x as u32, y as u32, self.color);
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn texts_are_wrapped_at_words_and_cut_off() {
        assert_eq!(wrapped("a red  circle", 8, 3), ["a red", "circle"]);
        assert_eq!(wrapped("a red circle", 8, 1), ["a red.."]);
        assert_eq!(wrapped("characters", 4, 9), ["char", "acte", "rs"]);
        assert_eq!(wrapped("one\ntwo", 8, 9), ["one", "two"]);
        assert!(wrapped("", 8, 9).is_empty());
    }

    #[test]
    fn letters_differ_and_stay_inside() {
        let [a, b] = ["aü", "bé"].map(|text| text_panel(text, 12, 8));
        assert_ne!(a, b);
        assert_eq!(text_panel("", 12, 8), RgbImage::from_pixel(12, 8, Rgb([255; 3])));
        let black = a.pixels().filter(|pixel| pixel.0 == [0; 3]).count();
        assert!((8..60).contains(&black), "{black}");
        // Two characters fit, the third would be cut in half.
        assert_eq!(text_panel("ab cd", 12, 8).dimensions(), (12, 8));
    }
}
