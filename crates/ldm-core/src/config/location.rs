//! Lines of keys: a second, untyped reading of a text that stops at a key.

use std::fmt;

use serde::Deserializer;
use serde::de::{DeserializeSeed, IgnoredAny, MapAccess, SeqAccess, Visitor};
use serde_yaml::Value;

/// One step of the path to a value.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Segment {
    Key(String),
    Index(usize),
}

impl Segment {
    pub(super) fn of(segment: &serde_path_to_error::Segment) -> Option<Self> {
        match segment {
            serde_path_to_error::Segment::Map { key } => Some(Self::Key(key.clone())),
            serde_path_to_error::Segment::Seq { index } => Some(Self::Index(*index)),
            _ => None,
        }
    }
}

impl fmt::Display for Segment {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Key(key) => f.write_str(key),
            Self::Index(index) => write!(f, "{index}"),
        }
    }
}

/// The line and column of the value at `path` in a YAML text; of the last value on the way where it ends earlier.
pub(super) fn location(text: &str, path: &[Segment]) -> Option<(usize, usize)> {
    (0..=path.len()).rev().find_map(|length| {
        let error = StopAt(&path[..length]).deserialize(serde_yaml::Deserializer::from_str(text)).err()?;
        error.location().map(|place| (place.line(), place.column()))
    })
}

/// Fails at the value at the path, and at no other: the error then has its line.
struct StopAt<'a>(&'a [Segment]);

impl<'de> DeserializeSeed<'de> for StopAt<'_> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        match self.0 {
            [] => deserializer.deserialize_any(Refuse),
            [first, rest @ ..] => deserializer.deserialize_any(Walk { first, rest }),
        }
    }
}

/// A visitor that expects nothing, so that every value is an error.
struct Refuse;

impl Visitor<'_> for Refuse {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter) -> fmt::Result {
        f.write_str("nothing")
    }
}

struct Walk<'a> {
    first: &'a Segment,
    rest: &'a [Segment],
}

impl<'de> Visitor<'de> for Walk<'_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter) -> fmt::Result {
        f.write_str("a mapping or list")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<(), A::Error> {
        while let Some(key) = map.next_key::<Value>()? {
            if matches!((&key, self.first), (Value::String(key), Segment::Key(first)) if key == first) {
                return map.next_value_seed(StopAt(self.rest));
            }
            map.next_value::<IgnoredAny>()?;
        }
        Ok(())
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<(), A::Error> {
        for index in 0.. {
            if *self.first == Segment::Index(index) {
                seq.next_element_seed(StopAt(self.rest))?;
                return Ok(());
            }
            if seq.next_element::<IgnoredAny>()?.is_none() {
                break;
            }
        }
        Ok(())
    }
}
