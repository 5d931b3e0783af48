//! Fields of the `config.json` that diffusers writes next to the weights of each part of a model.
//!
//! Each crate reads and writes the configs of its own modules; this module has the shared code.

use serde_json::{Map, Value};

use crate::{Error, Result};

/// The version of diffusers whose format is written and tested.
pub const VERSION: &str = "0.42.1";

/// A `config.json` of diffusers, read field by field.
///
/// Unknown keys are ignored: every version adds some. A missing field has the default of diffusers' constructor, given by
/// the caller. Errors name the key, the expected and the actual value.
#[derive(Debug, Clone)]
pub struct Fields<'a> {
    map: &'a Map<String, Value>,
}

impl<'a> Fields<'a> {
    /// The fields of `json`.
    ///
    /// # Errors
    /// [`Error::Invalid`] when it is not an object.
    pub fn new(json: &'a Value) -> Result<Self> {
        let map = json.as_object().ok_or_else(|| Error::invalid("expected a JSON object"))?;
        Ok(Self { map })
    }

    /// The class name, `_class_name`.
    ///
    /// # Errors
    /// [`Error::Invalid`] when it is missing or not text.
    pub fn class(&self) -> Result<&'a str> {
        let refuse = |found| wrong("_class_name", "the name of a class of diffusers", found);
        self.get("_class_name").and_then(Value::as_str).ok_or_else(|| refuse(self.map.get("_class_name")))
    }

    /// The value of `key`; null counts as absent.
    pub fn get(&self, key: &str) -> Option<&'a Value> {
        self.map.get(key).filter(|value| !value.is_null())
    }

    /// Returns whether `key` is present and null, which differs from its default.
    pub fn is_null(&self, key: &str) -> bool {
        self.map.get(key).is_some_and(Value::is_null)
    }

    /// An integer.
    ///
    /// # Errors
    /// [`Error::Invalid`] when it is something else.
    pub fn integer(&self, key: &str, default: i64) -> Result<i64> {
        Ok(self.maybe_integer(key)?.unwrap_or(default))
    }

    /// An integer, or `None` if it is absent or null.
    ///
    /// # Errors
    /// As [`Fields::integer`].
    pub fn maybe_integer(&self, key: &str) -> Result<Option<i64>> {
        let read = |value: &Value| value.as_i64().ok_or_else(|| wrong(key, "a whole number", Some(value)));
        self.get(key).map(read).transpose()
    }

    /// A number, or `None` if it is absent or null.
    ///
    /// # Errors
    /// As [`Fields::integer`].
    pub fn maybe_number(&self, key: &str) -> Result<Option<f64>> {
        let read = |value: &Value| value.as_f64().ok_or_else(|| wrong(key, "a number", Some(value)));
        self.get(key).map(read).transpose()
    }

    /// A Boolean.
    ///
    /// # Errors
    /// As [`Fields::integer`].
    pub fn flag(&self, key: &str, default: bool) -> Result<bool> {
        let read = |value: &Value| value.as_bool().ok_or_else(|| wrong(key, "true or false", Some(value)));
        self.get(key).map_or(Ok(default), read)
    }

    /// One of `words`; the first is the default.
    ///
    /// # Errors
    /// As [`Fields::integer`].
    pub fn word(&self, key: &str, words: &[&'static str]) -> Result<&'static str> {
        let Some(value) = self.get(key) else { return Ok(words[0]) };
        let known = words.iter().find(|word| value.as_str() == Some(word));
        known.copied().ok_or_else(|| wrong(key, &words.join(" or "), Some(value)))
    }

    /// A list of integers; a single integer is a list of one.
    ///
    /// # Errors
    /// [`Error::Invalid`] when it is absent or something else.
    pub fn integers(&self, key: &str) -> Result<Vec<i64>> {
        let refuse = || wrong(key, "a list of whole numbers", self.map.get(key));
        let value = self.get(key).ok_or_else(refuse)?;
        match value.as_array() {
            Some(list) => list.iter().map(|each| each.as_i64().ok_or_else(refuse)).collect(),
            None => Ok(vec![value.as_i64().ok_or_else(refuse)?]),
        }
    }

    /// One integer for all levels, possibly written as a list of equal integers.
    ///
    /// # Errors
    /// [`Error::Invalid`] when they differ: CompVis' networks have one value for all levels.
    pub fn same_on_all(&self, key: &str, default: i64) -> Result<i64> {
        if self.get(key).is_none() {
            return Ok(default);
        }
        let all = self.integers(key)?;
        match all.as_slice() {
            [first, rest @ ..] if rest.iter().all(|each| each == first) => Ok(*first),
            _ => Err(wrong(key, "one value for all levels", self.map.get(key))),
        }
    }

    /// A list of block types, without the prefix `UNetRes` of the first versions.
    ///
    /// # Errors
    /// [`Error::Invalid`] when it is absent or not a list of names.
    pub fn block_types(&self, key: &str) -> Result<Vec<&'a str>> {
        let refuse = || wrong(key, "a list of names", self.map.get(key));
        let list = self.get(key).and_then(Value::as_array).ok_or_else(refuse)?;
        let name = |each: &'a Value| each.as_str().map(|name| name.strip_prefix("UNetRes").unwrap_or(name));
        list.iter().map(|each| name(each).ok_or_else(refuse)).collect()
    }

    /// Height and width, from one integer or two; `None` if it is absent or null.
    ///
    /// # Errors
    /// [`Error::Invalid`] when it is something else.
    pub fn size(&self, key: &str) -> Result<Option<[i64; 2]>> {
        if self.get(key).is_none() {
            return Ok(None);
        }
        match self.integers(key)?.as_slice() {
            [side] => Ok(Some([*side; 2])),
            [height, width] => Ok(Some([*height, *width])),
            _ => Err(wrong(key, "one number or two", self.map.get(key))),
        }
    }

    /// Refuses fields whose values our networks do not support. `supported` lists the accepted values of each key; diffusers'
    /// default for a missing key must be among them. All items of a list must be accepted.
    ///
    /// # Errors
    /// [`Error::Invalid`] with the first key that has another value.
    pub fn check(&self, supported: &Value) -> Result<()> {
        for (key, accepted) in supported.as_object().expect("a table of keys") {
            let accepted = accepted.as_array().expect("the values of a key");
            let Some(value) = self.map.get(key) else { continue };
            let known = |value: &Value| accepted.iter().any(|each| equal(each, value));
            let list = value.as_array().is_some_and(|list| !list.is_empty() && list.iter().all(known));
            if !list && !known(value) {
                let expected: Vec<String> = accepted.iter().map(Value::to_string).collect();
                return Err(wrong(key, &expected.join(" or "), Some(value)));
            }
        }
        Ok(())
    }
}

/// Compares numbers by value: Python treats `1` and `1.0` alike.
fn equal(a: &Value, b: &Value) -> bool {
    if let (Some(a), Some(b)) = (a.as_f64(), b.as_f64()) { a == b } else { a == b }
}

/// The error for a value of `key` that is not as `expected`.
pub fn wrong(key: &str, expected: &str, found: Option<&Value>) -> Error {
    let found = found.map_or_else(|| "nothing".to_owned(), Value::to_string);
    Error::expected(format!("`{key}`"), expected, found)
}
