//! Serialization of [`ConditionerConfig`]: a word, or a map of target and params.

use std::fmt;

use serde::de::value::MapAccessDeserializer;
use serde::de::{self, Deserializer, MapAccess, Visitor};
use serde::ser::Serializer;
use serde::{Deserialize, Serialize};

use crate::{
    BertConfig, ClassConfig, ClipImageConfig, ClipTextConfig, ClipTextPooledConfig, ConditionerConfig,
    HybridConfig, SpatialConfig, TransformerConfig,
};

const UNCONDITIONAL: &str = "__is_unconditional__";
const FIRST_STAGE: &str = "__is_first_stage__";

/// The map. `params` may be absent if nothing in it is required, as in CompVis' files.
#[derive(Deserialize, Serialize)]
#[serde(tag = "target", content = "params", rename_all = "snake_case", deny_unknown_fields)]
enum ConditionerTarget {
    #[serde(alias = "ldm.modules.encoders.modules.ClassEmbedder")]
    Class(ClassConfig),
    #[serde(alias = "ldm.modules.encoders.modules.BERTEmbedder")]
    Bert(BertConfig),
    #[serde(alias = "ldm.modules.encoders.modules.TransformerEmbedder")]
    Transformer(TransformerConfig),
    #[serde(alias = "ldm.modules.encoders.modules.FrozenCLIPEmbedder")]
    ClipText(Option<ClipTextConfig>),
    #[serde(alias = "ldm.modules.encoders.modules.FrozenCLIPTextEmbedder")]
    ClipTextPooled(Option<ClipTextPooledConfig>),
    #[serde(alias = "ldm.modules.encoders.modules.FrozenClipImageEmbedder")]
    ClipImage(ClipImageConfig),
    #[serde(alias = "ldm.modules.encoders.modules.SpatialRescaler")]
    Spatial(Option<SpatialConfig>),
    #[serde(alias = "torch.nn.Identity")]
    Identity(Option<NoParams>),
    #[serde(alias = "ldm.modules.diffusionmodules.util.HybridConditioner")]
    Hybrid(HybridConfig),
}

/// `params: {}`.
#[derive(Default, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
struct NoParams {}

impl From<ConditionerTarget> for ConditionerConfig {
    fn from(target: ConditionerTarget) -> Self {
        match target {
            ConditionerTarget::Class(config) => Self::Class(config),
            ConditionerTarget::Bert(config) => Self::Bert(config),
            ConditionerTarget::Transformer(config) => Self::Transformer(config),
            ConditionerTarget::ClipText(config) => Self::ClipText(config.unwrap_or_default()),
            ConditionerTarget::ClipTextPooled(config) => Self::ClipTextPooled(config.unwrap_or_default()),
            ConditionerTarget::ClipImage(config) => Self::ClipImage(config),
            ConditionerTarget::Spatial(config) => Self::Spatial(config.unwrap_or_default()),
            ConditionerTarget::Identity(_) => Self::Identity,
            ConditionerTarget::Hybrid(config) => Self::Hybrid(config),
        }
    }
}

impl<'de> Deserialize<'de> for ConditionerConfig {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(WordOrTarget)
    }
}

impl Serialize for ConditionerConfig {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let target = match self.clone() {
            Self::Unconditional => return serializer.serialize_str(UNCONDITIONAL),
            Self::FirstStage => return serializer.serialize_str(FIRST_STAGE),
            Self::Class(config) => ConditionerTarget::Class(config),
            Self::Bert(config) => ConditionerTarget::Bert(config),
            Self::Transformer(config) => ConditionerTarget::Transformer(config),
            Self::ClipText(config) => ConditionerTarget::ClipText(Some(config)),
            Self::ClipTextPooled(config) => ConditionerTarget::ClipTextPooled(Some(config)),
            Self::ClipImage(config) => ConditionerTarget::ClipImage(config),
            Self::Spatial(config) => ConditionerTarget::Spatial(Some(config)),
            Self::Identity => ConditionerTarget::Identity(Some(NoParams {})),
            Self::Hybrid(config) => ConditionerTarget::Hybrid(config),
        };
        target.serialize(serializer)
    }
}

/// Not `untagged`, whose every error is "did not match any variant".
struct WordOrTarget;

impl<'de> Visitor<'de> for WordOrTarget {
    type Value = ConditionerConfig;

    fn expecting(&self, f: &mut fmt::Formatter) -> fmt::Result {
        write!(f, "{UNCONDITIONAL}, {FIRST_STAGE}, or a map of target and params")
    }

    fn visit_str<E: de::Error>(self, word: &str) -> Result<Self::Value, E> {
        match word {
            UNCONDITIONAL => Ok(ConditionerConfig::Unconditional),
            FIRST_STAGE => Ok(ConditionerConfig::FirstStage),
            _ => Err(E::invalid_value(de::Unexpected::Str(word), &self)),
        }
    }

    fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<Self::Value, A::Error> {
        ConditionerTarget::deserialize(MapAccessDeserializer::new(map)).map(Into::into)
    }
}
