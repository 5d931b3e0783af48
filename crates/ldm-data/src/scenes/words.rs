//! The closed vocabulary of scenes.

use serde::{Deserialize, Serialize};

/// An enum with a word for each variant, which captions use and [`crate::scenes::parse`] reads back.
macro_rules! words {
    ($(#[$doc:meta])* $name:ident { $($variant:ident = $word:literal),+ $(,)? }) => {
        $(#[$doc])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
        #[serde(rename_all = "snake_case", deny_unknown_fields)]
        pub enum $name {
            $(#[doc = concat!("\"", $word, "\".")] $variant),+
        }

        impl $name {
            /// All variants, in the order of their numbers.
            pub const ALL: &[Self] = &[$(Self::$variant),+];

            /// The word in captions.
            pub fn word(self) -> &'static str {
                match self { $(Self::$variant => $word),+ }
            }

            /// Finds the variant with this word.
            pub fn from_word(word: &str) -> Option<Self> {
                Self::ALL.iter().copied().find(|each| each.word() == word)
            }
        }
    };
}

words! {
    /// Shape of an object. Its number is the class of a scene, of a box, and (plus one) of a label map.
    Shape {
        Circle = "circle", Square = "square", Triangle = "triangle", Star = "star", Heart = "heart",
        Ring = "ring", Cross = "cross", Diamond = "diamond", Moon = "moon", Arrow = "arrow",
    }
}
words! {
    /// Color of an object.
    Color {
        Red = "red", Orange = "orange", Yellow = "yellow", Green = "green", Blue = "blue",
        Purple = "purple", Pink = "pink", Brown = "brown", Black = "black", White = "white",
    }
}
words! {
    /// Size of an object.
    Size { Small = "small", Medium = "medium", Large = "large" }
}
words! {
    /// Fill of an object.
    Fill { Plain = "plain", Striped = "striped", Dotted = "dotted" }
}
words! {
    /// Place of the center of an object, in thirds of the image.
    Place {
        TopLeft = "at the top left", Top = "at the top", TopRight = "at the top right",
        Left = "on the left", Center = "in the center", Right = "on the right",
        BottomLeft = "at the bottom left", Bottom = "at the bottom", BottomRight = "at the bottom right",
    }
}
words! {
    /// Color of the background; none is the color of an object.
    Ground { Cream = "cream", Mint = "mint", Sky = "sky", Lilac = "lilac", Slate = "slate", Navy = "navy" }
}
words! {
    /// Texture of the background.
    Texture { Plain = "plain", Fading = "fading", Striped = "striped", Checked = "checked" }
}

impl Place {
    /// Column and row, each 0, 1 or 2, from the top left.
    pub fn cell(self) -> [usize; 2] {
        let number = self as usize;
        [number % 3, number / 3]
    }
}

/// Red, green and blue, in `[0, 255]`.
pub(crate) type Rgb = [f32; 3];

impl Color {
    /// RGB value.
    pub(crate) fn rgb(self) -> Rgb {
        match self {
            Self::Red => [218., 40., 40.],
            Self::Orange => [247., 132., 20.],
            Self::Yellow => [250., 212., 30.],
            Self::Green => [34., 156., 72.],
            Self::Blue => [40., 98., 232.],
            Self::Purple => [136., 58., 196.],
            Self::Pink => [244., 126., 182.],
            Self::Brown => [128., 78., 44.],
            Self::Black => [26., 26., 30.],
            Self::White => [250., 250., 250.],
        }
    }
}

impl Ground {
    /// RGB value.
    pub(crate) fn rgb(self) -> Rgb {
        match self {
            Self::Cream => [250., 238., 210.],
            Self::Mint => [192., 230., 208.],
            Self::Sky => [184., 216., 242.],
            Self::Lilac => [216., 204., 240.],
            Self::Slate => [92., 106., 124.],
            Self::Navy => [26., 34., 72.],
        }
    }

    /// Returns true when an object of this color stands out from it.
    pub(crate) fn shows(self, color: Color) -> bool {
        distance(self.rgb(), color.rgb()) >= 190.
    }
}

/// Perceived distance of two colors: "redmean", a cheap approximation of a distance in a perceptual space.
fn distance(a: Rgb, b: Rgb) -> f32 {
    let mean = f32::midpoint(a[0], b[0]) / 256.;
    let [r, g, b] = [a[0] - b[0], a[1] - b[1], a[2] - b[2]];
    ((2. + mean) * r * r + 4. * g * g + (3. - mean) * b * b).sqrt()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_are_read_back() {
        for &shape in Shape::ALL {
            assert_eq!(Shape::from_word(shape.word()), Some(shape));
        }
        assert_eq!(Shape::from_word("dragon"), None);
        assert_eq!(Place::from_word("at the bottom"), Some(Place::Bottom));
        assert_eq!(Place::BottomLeft.cell(), [0, 2]);
    }

    #[test]
    fn colors_are_distinguishable() {
        for (k, a) in Color::ALL.iter().enumerate() {
            for b in &Color::ALL[..k] {
                let apart = distance(a.rgb(), b.rgb());
                assert!(apart > 140., "{} and {}: {apart}", a.word(), b.word());
            }
        }
    }

    #[test]
    fn every_color_shows_on_several_grounds_and_every_ground_shows_several_colors() {
        for &color in Color::ALL {
            let grounds = Ground::ALL.iter().filter(|ground| ground.shows(color)).count();
            assert!(grounds >= 2, "{}: {grounds}", color.word());
        }
        for &ground in Ground::ALL {
            let colors = Color::ALL.iter().filter(|color| ground.shows(**color)).count();
            assert!(colors >= 5, "{}: {colors}", ground.word());
        }
    }
}
