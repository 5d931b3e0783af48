//! Numbers with bounds, and spans of them, as one types them.

use std::str::FromStr;

/// A number in `[0, 1]`.
pub(crate) fn share(text: &str) -> Result<f64, String> {
    let number = text.parse().ok().filter(|number| (0. ..=1.).contains(number));
    number.ok_or_else(|| "expected a number from 0 to 1".into())
}

/// `LOW..HIGH`
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Span {
    pub(crate) low: f64,
    pub(crate) high: f64,
}

impl FromStr for Span {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        text.split_once("..")
            .and_then(|(low, high)| Some(Self { low: low.parse().ok()?, high: high.parse().ok()? }))
            .filter(|span| 0. <= span.low && span.low < span.high)
            .ok_or_else(|| "expected LOW..HIGH, as 0.3..5, with 0 <= LOW < HIGH".into())
    }
}

/// A tile's side.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Side {
    /// That of the images the model was trained on.
    Auto,
    /// In pixels.
    Pixels(i64),
}

impl FromStr for Side {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text.parse() {
            Ok(side) if side > 0 => Ok(Self::Pixels(side)),
            _ if text == "auto" => Ok(Self::Auto),
            _ => Err("expected a number of pixels, or auto".into()),
        }
    }
}

/// How far images are turned to another noise.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) enum Turn {
    /// All as far.
    Each(f64),
    /// From the first to the last.
    Along(f64, f64),
}

impl FromStr for Turn {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let wrong = |_| "expected a number from 0 to 1, or FROM..TO with two of them".to_owned();
        match text.split_once("..") {
            None => share(text).map(Self::Each).map_err(wrong),
            Some((from, to)) => share(from).and_then(|from| Ok(Self::Along(from, share(to)?))).map_err(wrong),
        }
    }
}

impl Turn {
    /// Of image `index` of `count`.
    pub(crate) fn of(self, index: usize, count: usize) -> f64 {
        match self {
            Self::Each(share) => share,
            Self::Along(from, _) if count == 1 => from,
            Self::Along(from, to) => from + (to - from) * index as f64 / (count - 1) as f64,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn spans_and_turns_are_read() {
        assert_eq!("0.3..5".parse(), Ok(Span { low: 0.3, high: 5. }));
        assert_eq!("0..inf".parse(), Ok(Span { low: 0., high: f64::INFINITY }));
        for wrong in ["", "1", "..", "2..1", "-1..2", "a..b", "1..1", "NaN..1"] {
            assert!(wrong.parse::<Span>().is_err(), "{wrong}");
        }
        assert_eq!("0.25".parse(), Ok(Turn::Each(0.25)));
        let turn: Turn = "0..1".parse().unwrap();
        assert_eq!([0, 1, 2, 4].map(|index| turn.of(index, 5)), [0., 0.25, 0.5, 1.]);
        assert_eq!(["auto", "64"].map(str::parse), [Ok(Side::Auto), Ok(Side::Pixels(64))]);
        for wrong in ["", "0", "-8", "64px"] {
            assert!(wrong.parse::<Side>().is_err(), "{wrong}");
        }
        for wrong in ["", "2", "0..2", "-0.1", "x", "NaN"] {
            assert!(wrong.parse::<Turn>().is_err(), "{wrong}");
        }
    }
}
