//! Defaults of config fields, and numbers that may be written as lists.

use serde::{Deserializer, de};

pub(crate) fn unset() -> i64 {
    -1
}

pub(crate) fn one() -> i64 {
    1
}

pub(crate) fn two() -> i64 {
    2
}

pub(crate) fn yes() -> bool {
    true
}

pub(crate) fn channel_mult() -> Vec<i64> {
    vec![1, 2, 4, 8]
}

/// Reads a size: null, one number, or height and width.
pub(crate) fn size<'de, D: Deserializer<'de>>(
    deserializer: D,
) -> std::result::Result<Option<[i64; 2]>, D::Error> {
    match deserializer.deserialize_any(Numbers)?.as_slice() {
        [] => Ok(None),
        [side] => Ok(Some([*side; 2])),
        [height, width] => Ok(Some([*height, *width])),
        more => Err(de::Error::invalid_length(more.len(), &"one number or two")),
    }
}

/// Reads null, a number, or a list of one.
pub(crate) fn number_or_list<'de, D: Deserializer<'de>>(
    deserializer: D,
) -> std::result::Result<Option<i64>, D::Error> {
    match deserializer.deserialize_any(Numbers)?.as_slice() {
        [] => Ok(None),
        [number] => Ok(Some(*number)),
        more => Err(de::Error::invalid_length(more.len(), &"one number")),
    }
}

/// Null, a number, or a list of numbers.
struct Numbers;

impl<'de> de::Visitor<'de> for Numbers {
    type Value = Vec<i64>;

    fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("a number or a list of numbers")
    }

    fn visit_unit<E>(self) -> std::result::Result<Vec<i64>, E> {
        Ok(Vec::new())
    }

    fn visit_i64<E>(self, value: i64) -> std::result::Result<Vec<i64>, E> {
        Ok(vec![value])
    }

    fn visit_u64<E: de::Error>(self, value: u64) -> std::result::Result<Vec<i64>, E> {
        i64::try_from(value).map(|value| vec![value]).map_err(E::custom)
    }

    fn visit_seq<A: de::SeqAccess<'de>>(self, mut list: A) -> std::result::Result<Vec<i64>, A::Error> {
        let mut all = Vec::new();
        while let Some(value) = list.next_element()? {
            all.push(value);
        }
        Ok(all)
    }
}
