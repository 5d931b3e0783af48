//! JSON objects of any fields, of bounded size in memory.

use std::cell::Cell;
use std::fmt;

use serde::de::{DeserializeSeed, Deserializer, Error, MapAccess, SeqAccess, Visitor};
use serde::{Deserialize, de};
use serde_json::{Map, Number, Value};

/// The most values in a body. An empty object of two bytes takes hundreds of bytes in memory.
const MOST_VALUES: usize = 10_000;

/// A JSON object of any fields with at most [`MOST_VALUES`] values in all.
#[derive(Debug)]
pub(crate) struct JsonMap(pub(crate) Map<String, Value>);

impl<'de> Deserialize<'de> for JsonMap {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        match Counted(&Cell::new(0)).deserialize(deserializer)? {
            Value::Object(map) => Ok(Self(map)),
            _ => Err(D::Error::custom("expected a JSON object")),
        }
    }
}

/// A value that counts itself, and those in it.
#[derive(Clone, Copy)]
struct Counted<'a>(&'a Cell<usize>);

impl<'de> DeserializeSeed<'de> for Counted<'_> {
    type Value = Value;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Value, D::Error> {
        self.0.set(self.0.get() + 1);
        if self.0.get() > MOST_VALUES {
            return Err(D::Error::custom(format!("expected at most {MOST_VALUES} values in a body")));
        }
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Counted<'_> {
    type Value = Value;

    fn expecting(&self, f: &mut fmt::Formatter) -> fmt::Result {
        f.write_str("JSON")
    }

    fn visit_unit<E: de::Error>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_bool<E: de::Error>(self, flag: bool) -> Result<Value, E> {
        Ok(Value::Bool(flag))
    }

    fn visit_i64<E: de::Error>(self, number: i64) -> Result<Value, E> {
        Ok(Value::Number(number.into()))
    }

    fn visit_u64<E: de::Error>(self, number: u64) -> Result<Value, E> {
        Ok(Value::Number(number.into()))
    }

    fn visit_f64<E: de::Error>(self, number: f64) -> Result<Value, E> {
        Ok(Number::from_f64(number).map_or(Value::Null, Value::Number))
    }

    fn visit_str<E: de::Error>(self, text: &str) -> Result<Value, E> {
        Ok(Value::String(text.to_owned()))
    }

    fn visit_string<E: de::Error>(self, text: String) -> Result<Value, E> {
        Ok(Value::String(text))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Value, A::Error> {
        let mut all = Vec::new();
        while let Some(item) = items.next_element_seed(self)? {
            all.push(item);
        }
        Ok(Value::Array(all))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut fields: A) -> Result<Value, A::Error> {
        let mut all = Map::new();
        while let Some(key) = fields.next_key::<String>()? {
            all.insert(key, fields.next_value_seed(self)?);
        }
        Ok(Value::Object(all))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn objects_are_read_as_serde_reads_them_up_to_a_number_of_values() {
        let text = r#"{"a":[1,-2,0.5,1e300,"é\n",null,true,{"b":{}}],"c":18446744073709551615}"#;
        assert_eq!(
            Value::Object(serde_json::from_str::<JsonMap>(text).unwrap().0),
            text.parse::<Value>().unwrap()
        );
        for (text, message) in [
            (
                format!(r#"{{"x":[{}]}}"#, vec![r#"{"":0}"#; MOST_VALUES].join(",")),
                "expected at most 10000 values",
            ),
            ("[]".to_owned(), "expected a JSON object"),
            ("{".to_owned(), "EOF"),
        ] {
            let error = serde_json::from_str::<JsonMap>(&text).unwrap_err().to_string();
            assert!(error.starts_with(message), "{error}");
        }
    }
}
