//! The strength of variations of a seed.

use std::str::FromStr;

/// The strength of variations, in text a number or `FROM..TO`.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum VariationStrength {
    /// One strength for all images.
    Each(f64),
    /// Strengths of the first and the last image, interpolated linearly.
    Along(f64, f64),
}

impl FromStr for VariationStrength {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let share = |text: &str| {
            let number = text.parse().ok().filter(|number| (0. ..=1.).contains(number));
            number.ok_or_else(|| "expected a number from 0 to 1, or FROM..TO with two of them".to_owned())
        };
        Ok(match text.split_once("..") {
            None => Self::Each(share(text)?),
            Some((from, to)) => Self::Along(share(from)?, share(to)?),
        })
    }
}

impl VariationStrength {
    /// Returns the strength of image `index` of `count`.
    pub fn of(self, index: usize, count: usize) -> f64 {
        match self {
            Self::Each(strength) => strength,
            Self::Along(from, _) if count == 1 => from,
            Self::Along(from, to) => from + (to - from) * index as f64 / (count - 1) as f64,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn strengths_are_shares() {
        assert_eq!("0.25".parse(), Ok(VariationStrength::Each(0.25)));
        let strength: VariationStrength = "0..1".parse().unwrap();
        assert_eq!([0, 1, 2, 4].map(|index| strength.of(index, 5)), [0., 0.25, 0.5, 1.]);
        for wrong in ["", "2", "0..2", "-0.1", "x", "NaN"] {
            assert!(wrong.parse::<VariationStrength>().is_err(), "{wrong}");
        }
    }
}
