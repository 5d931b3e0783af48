//! Intervals of sampling options.

use std::str::FromStr;

/// An interval of numbers from 0 on, in text `LOW..HIGH`.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Interval {
    /// Its lower end.
    pub low: f64,
    /// Its higher end; may be infinite.
    pub high: f64,
}

impl FromStr for Interval {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        text.split_once("..")
            .and_then(|(low, high)| Some(Self { low: low.parse().ok()?, high: high.parse().ok()? }))
            .filter(|interval| 0. <= interval.low && interval.low < interval.high)
            .ok_or_else(|| "expected LOW..HIGH, as 0.3..5, with 0 <= LOW < HIGH".into())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn intervals_have_two_ends() {
        assert_eq!("0.3..5".parse(), Ok(Interval { low: 0.3, high: 5. }));
        assert_eq!("0..inf".parse(), Ok(Interval { low: 0., high: f64::INFINITY }));
        for wrong in ["", "1", "..", "2..1", "-1..2", "a..b", "1..1", "NaN..1"] {
            assert!(wrong.parse::<Interval>().is_err(), "{wrong}");
        }
    }
}
