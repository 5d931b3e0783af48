//! The reference's `cond_stage_config`.

use std::fmt;

use ldm_core::{Error, Result};
use serde::de::value::MapAccessDeserializer;
use serde::de::{self, Deserializer, MapAccess, Visitor};
use serde::ser::Serializer;
use serde::{Deserialize, Serialize};
use tch::nn;

use crate::{ClassConfig, ClassEmbedder, Conditioner, Unconditional};

const UNCONDITIONAL: &str = "__is_unconditional__";
const FIRST_STAGE: &str = "__is_first_stage__";

/// Which conditioner: one of the reference's two words, or `{target, params}` under its long names or our short.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub enum ConditionerConfig {
    /// `__is_unconditional__`: [`Unconditional`].
    #[default]
    Unconditional,
    /// `__is_first_stage__`: the first stage encodes the condition too. Not built yet.
    FirstStage,
    /// `class`: [`ClassEmbedder`].
    Class(ClassConfig),
}

/// The part of it that is a map.
#[derive(Deserialize, Serialize)]
#[serde(tag = "target", content = "params", rename_all = "snake_case", deny_unknown_fields)]
enum Target {
    #[serde(alias = "ldm.modules.encoders.modules.ClassEmbedder")]
    Class(ClassConfig),
}

impl ConditionerConfig {
    /// The conditioner, its weights at `vs`.
    ///
    /// # Errors
    /// When the config cannot be, or names a conditioner that is not here yet.
    pub fn build(&self, vs: &nn::Path) -> Result<Box<dyn Conditioner>> {
        Ok(match self {
            Self::Unconditional => Box::new(Unconditional),
            Self::Class(config) => Box::new(ClassEmbedder::new(vs, config)?),
            Self::FirstStage => {
                return Err(Error::invalid(format!(
                    "conditioning by the first stage is not here yet, expected {UNCONDITIONAL} or the target \
                     class, got {FIRST_STAGE}"
                )));
            }
        })
    }
}

impl<'de> Deserialize<'de> for ConditionerConfig {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> std::result::Result<Self, D::Error> {
        deserializer.deserialize_any(WordOrTarget)
    }
}

impl Serialize for ConditionerConfig {
    fn serialize<S: Serializer>(&self, serializer: S) -> std::result::Result<S::Ok, S::Error> {
        match self {
            Self::Unconditional => serializer.serialize_str(UNCONDITIONAL),
            Self::FirstStage => serializer.serialize_str(FIRST_STAGE),
            Self::Class(config) => Target::Class(config.clone()).serialize(serializer),
        }
    }
}

/// By hand and not `untagged`, which would answer every mistake with "did not match any variant".
struct WordOrTarget;

impl<'de> Visitor<'de> for WordOrTarget {
    type Value = ConditionerConfig;

    fn expecting(&self, f: &mut fmt::Formatter) -> fmt::Result {
        write!(f, "{UNCONDITIONAL}, {FIRST_STAGE}, or a map of target and params")
    }

    fn visit_str<E: de::Error>(self, word: &str) -> std::result::Result<Self::Value, E> {
        match word {
            UNCONDITIONAL => Ok(ConditionerConfig::Unconditional),
            FIRST_STAGE => Ok(ConditionerConfig::FirstStage),
            _ => Err(E::invalid_value(de::Unexpected::Str(word), &self)),
        }
    }

    fn visit_map<A: MapAccess<'de>>(self, map: A) -> std::result::Result<Self::Value, A::Error> {
        Target::deserialize(MapAccessDeserializer::new(map)).map(|target| match target {
            Target::Class(config) => ConditionerConfig::Class(config),
        })
    }
}
