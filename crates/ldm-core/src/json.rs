//! Numbers in JSON, which has no NaN and no Inf.
//!
//! `serde_json` writes both as `null` and then refuses `null` where it expects a number. Here they are the strings `NaN`,
//! `Infinity` and `-Infinity`, as in the JSON mapping of Protocol Buffers; a `null` of older files is read as NaN.

use std::fmt;

use serde::de::{Unexpected, Visitor};
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use serde_json::{Value, json};

/// The name of a NaN or Inf.
fn name(value: f64) -> Option<&'static str> {
    match value {
        _ if value.is_nan() => Some("NaN"),
        f64::INFINITY => Some("Infinity"),
        f64::NEG_INFINITY => Some("-Infinity"),
        _ => None,
    }
}

fn parse(name: &str) -> Option<f64> {
    match name {
        "NaN" => Some(f64::NAN),
        "Infinity" => Some(f64::INFINITY),
        "-Infinity" => Some(f64::NEG_INFINITY),
        _ => None,
    }
}

/// Returns a JSON number, or the name of a NaN or Inf.
///
/// ```
/// use ldm_core::json::{as_f64, number};
///
/// assert_eq!(number(f64::INFINITY), "Infinity");
/// assert_eq!(as_f64(&number(f64::INFINITY)), Some(f64::INFINITY));
/// assert_eq!(number(0.5), 0.5);
/// ```
pub fn number(value: f64) -> Value {
    name(value).map_or_else(|| json!(value), Value::from)
}

/// Returns the value of a [`number`]; `None` for anything else.
pub fn as_f64(value: &Value) -> Option<f64> {
    value.as_f64().or_else(|| value.as_str().and_then(parse))
}

/// A [`number`] as a type of its own, for containers.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct JsonNumber(pub f64);

impl Serialize for JsonNumber {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match name(self.0) {
            Some(name) => serializer.serialize_str(name),
            None => serializer.serialize_f64(self.0),
        }
    }
}

impl<'de> Deserialize<'de> for JsonNumber {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct NumberVisitor;

        impl Visitor<'_> for NumberVisitor {
            type Value = JsonNumber;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a number, NaN, Infinity or -Infinity")
            }

            fn visit_f64<E>(self, value: f64) -> Result<JsonNumber, E> {
                Ok(JsonNumber(value))
            }

            fn visit_i64<E>(self, value: i64) -> Result<JsonNumber, E> {
                Ok(JsonNumber(value as f64))
            }

            fn visit_u64<E>(self, value: u64) -> Result<JsonNumber, E> {
                Ok(JsonNumber(value as f64))
            }

            fn visit_str<E: serde::de::Error>(self, value: &str) -> Result<JsonNumber, E> {
                parse(value).map(JsonNumber).ok_or_else(|| E::invalid_value(Unexpected::Str(value), &self))
            }

            fn visit_unit<E>(self) -> Result<JsonNumber, E> {
                Ok(JsonNumber(f64::NAN))
            }
        }

        deserializer.deserialize_any(NumberVisitor)
    }
}

/// `#[serde(with = "ldm_core::json::float")]` for an `f64`.
pub mod float {
    use serde::{Deserialize, Deserializer, Serialize, Serializer};

    use super::JsonNumber;

    /// Serializes a [`number`](super::number).
    ///
    /// # Errors
    /// Those of the serializer.
    pub fn serialize<S: Serializer>(value: &f64, serializer: S) -> Result<S::Ok, S::Error> {
        JsonNumber(*value).serialize(serializer)
    }

    /// Deserializes a [`number`](super::number).
    ///
    /// # Errors
    /// When it is none.
    pub fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<f64, D::Error> {
        JsonNumber::deserialize(deserializer).map(|number| number.0)
    }
}

/// `#[serde(with = "ldm_core::json::floats")]` for a collection of `f64`: a list, an option, a map by name.
pub mod floats {
    use serde::{Deserialize, Deserializer, Serialize, Serializer};

    use super::JsonNumber;

    /// A collection whose numbers are written as [`number`](super::number).
    pub trait Floats: Sized {
        /// The same collection of [`JsonNumber`].
        type Numbers: Serialize + for<'de> Deserialize<'de>;
        /// Wraps each number.
        fn to_numbers(&self) -> Self::Numbers;
        /// Unwraps each number.
        fn from_numbers(numbers: Self::Numbers) -> Self;
    }

    impl Floats for Vec<f64> {
        type Numbers = Vec<JsonNumber>;
        fn to_numbers(&self) -> Self::Numbers {
            self.iter().copied().map(JsonNumber).collect()
        }
        fn from_numbers(numbers: Self::Numbers) -> Self {
            numbers.into_iter().map(|number| number.0).collect()
        }
    }

    impl Floats for Option<f64> {
        type Numbers = Option<JsonNumber>;
        fn to_numbers(&self) -> Self::Numbers {
            self.map(JsonNumber)
        }
        fn from_numbers(numbers: Self::Numbers) -> Self {
            numbers.map(|number| number.0)
        }
    }

    impl Floats for std::collections::BTreeMap<String, f64> {
        type Numbers = std::collections::BTreeMap<String, JsonNumber>;
        fn to_numbers(&self) -> Self::Numbers {
            self.iter().map(|(name, value)| (name.clone(), JsonNumber(*value))).collect()
        }
        fn from_numbers(numbers: Self::Numbers) -> Self {
            numbers.into_iter().map(|(name, number)| (name, number.0)).collect()
        }
    }

    /// Serializes each [`number`](super::number).
    ///
    /// # Errors
    /// Those of the serializer.
    pub fn serialize<T: Floats, S: Serializer>(values: &T, serializer: S) -> Result<S::Ok, S::Error> {
        values.to_numbers().serialize(serializer)
    }

    /// Deserializes each [`number`](super::number).
    ///
    /// # Errors
    /// When one is none.
    pub fn deserialize<'de, T: Floats, D: Deserializer<'de>>(deserializer: D) -> Result<T, D::Error> {
        T::Numbers::deserialize(deserializer).map(T::from_numbers)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;

    #[derive(Debug, Serialize, Deserialize)]
    struct Numbers {
        #[serde(with = "float")]
        one: f64,
        #[serde(with = "floats")]
        list: Vec<f64>,
        #[serde(with = "floats", default)]
        option: Option<f64>,
        #[serde(with = "floats")]
        map: BTreeMap<String, f64>,
    }

    #[test]
    fn every_number_written_is_read_back() {
        let numbers = [0.1, -2., f64::NAN, f64::INFINITY, f64::NEG_INFINITY, f64::MAX, 5e-324];
        for value in numbers {
            let map = BTreeMap::from([("a".to_owned(), value)]);
            let text =
                serde_json::to_string(&Numbers { one: value, list: vec![value], option: Some(value), map })
                    .unwrap();
            let read: Numbers = serde_json::from_str(&text).unwrap();
            for got in [read.one, read.list[0], read.option.unwrap(), read.map["a"]] {
                assert!(got.to_bits() == value.to_bits() || (got.is_nan() && value.is_nan()), "{text}");
            }
        }
    }

    #[test]
    fn null_is_nan_and_other_texts_are_refused() {
        let read: Numbers = serde_json::from_str(r#"{"one": null, "list": [1, null], "map": {}}"#).unwrap();
        assert!(read.one.is_nan() && read.list[0] == 1. && read.list[1].is_nan() && read.option.is_none());
        let error = serde_json::from_str::<JsonNumber>("\"many\"").unwrap_err().to_string();
        assert!(error.contains("expected a number, NaN, Infinity or -Infinity"), "{error}");
    }
}
