//! Caption files: a table (`.tsv`, `.csv`), lines of JSON, or COCO's JSON.

use std::collections::HashMap;
use std::fmt;
use std::path::PathBuf;

use serde::de::value::MapAccessDeserializer;
use serde::de::{self, Deserializer, MapAccess, Visitor};
use serde::ser::Serializer;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use ldm_core::{Error, Result, text};

use crate::labels::caption_table::CaptionColumns;
use crate::source::data_paths::DataPaths;
use crate::source::missing::Missing;

/// Source of captions: a word, `text` for one caption of all images, or the keys of a [`CaptionFile`].
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub enum CaptionSource {
    /// `auto`: from `.txt` or `.json` files next to the images if there are any, else from the `metadata.jsonl` or
    /// `metadata.csv` of a Hugging Face image folder.
    #[default]
    Auto,
    /// `none`: no captions.
    None,
    /// `{text: a photo of a dog}`: the same for every image.
    Text(String),
    /// From one file.
    File(CaptionFile),
}

/// Captions in one file. An image is named with or without its extension, and without its folders where that is unique;
/// the seed draws one of several captions of an image.
///
/// ```yaml
/// captions: { file: captions.tsv, name: key, caption: caption }
/// ```
///
/// - `.tsv`, `.csv`: a table. Columns are named by the first line, or numbered from 0 where the file has no such line;
///   a line with `file_name` is one.
/// - `.jsonl`: an object per line.
/// - `.json`: COCO captions (`images`, `annotations`), or an object of a caption or a list of captions by name.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CaptionFile {
    /// The file.
    pub file: PathBuf,
    /// Column or key of the name of the image. Left out, the first column, or `file_name`.
    #[serde(default)]
    pub name: Option<Column>,
    /// Column or key of the caption or list of captions. Left out, the second column, or `caption`, `text` or `prompt`.
    #[serde(default)]
    pub caption: Option<Column>,
    /// Treatment of images without a caption.
    #[serde(default)]
    pub missing: Missing,
}

/// Column of a table: by name, or by index from 0.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Column {
    /// By the name in the first line.
    Name(String),
    /// By index; the first line is then like the others.
    Index(usize),
}

/// Captions by name of the image.
pub(crate) type Captions = HashMap<String, Vec<String>>;

impl CaptionFile {
    /// Reads the file.
    pub(crate) fn read(&self, paths: &DataPaths) -> Result<Captions> {
        let path = paths.resolve(&self.file)?;
        let text = text::read(&path)?;
        let (name, caption) = (self.name.as_ref(), self.caption.as_ref());
        let columns = CaptionColumns { name, caption, may_lack: false };
        let extension = path.extension().unwrap_or_default().to_string_lossy().to_ascii_lowercase();
        let read = match extension.as_str() {
            "tsv" => columns.tabs(&text),
            "csv" => columns.commas(&text),
            "jsonl" => columns.json_lines(&text),
            "json" => document(&text),
            _ => Err("expected a .tsv, .csv, .jsonl or .json".to_owned()),
        };
        let captions = read.map_err(|message| Error::data(&path, message))?;
        if captions.is_empty() {
            return Err(Error::data(&path, "expected captions, got none"));
        }
        Ok(captions)
    }
}

/// Reads COCO captions, or an object of captions by name.
fn document(text: &str) -> std::result::Result<Captions, String> {
    let value: Value = serde_json::from_str(text).map_err(|error| format!("expected JSON, got {error}"))?;
    let Some(annotations) = value.get("annotations") else {
        let object = value.as_object().ok_or("expected COCO captions or an object of captions by name")?;
        let one = |(name, value): (&String, &Value)| {
            let captions =
                texts(value).ok_or_else(|| format!("`{name}`: expected a caption or a list of captions"))?;
            Ok((name.clone(), captions))
        };
        return object.iter().map(one).collect();
    };
    let list = |value: &Value| value.as_array().cloned().unwrap_or_default();
    let mut names = HashMap::new();
    for image in list(&value["images"]) {
        if let (Some(id), Some(name)) = (image["id"].as_i64(), image["file_name"].as_str()) {
            names.insert(id, name.to_owned());
        }
    }
    let mut captions = Captions::new();
    for annotation in list(annotations) {
        let id =
            annotation["image_id"].as_i64().ok_or("expected an `image_id` of each annotation, got none")?;
        let name = names
            .get(&id)
            .ok_or_else(|| format!("expected an image with the id {id} of a caption, got none"))?;
        let caption =
            annotation["caption"].as_str().ok_or_else(|| format!("{name}: expected `caption`, got none"))?;
        captions.entry(name.clone()).or_default().push(caption.trim().to_owned());
    }
    Ok(captions)
}

/// A string, or a list of at least one.
pub(crate) fn texts(value: &Value) -> Option<Vec<String>> {
    match value {
        Value::String(text) => Some(vec![text.trim().to_owned()]),
        Value::Array(texts) if !texts.is_empty() => {
            texts.iter().map(|text| Some(text.as_str()?.trim().to_owned())).collect()
        }
        _ => None,
    }
}

// ---- Config keys ----------------------------------------------------------------------------------------------------
// By hand and not `untagged`, whose error for every mistake is "did not match any variant".

impl<'de> Deserialize<'de> for CaptionSource {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> std::result::Result<Self, D::Error> {
        deserializer.deserialize_any(WordOrFile)
    }
}

impl Serialize for CaptionSource {
    fn serialize<S: Serializer>(&self, serializer: S) -> std::result::Result<S::Ok, S::Error> {
        match self {
            Self::Auto => serializer.serialize_str("auto"),
            Self::None => serializer.serialize_str("none"),
            Self::Text(text) => serializer.collect_map([("text", text)]),
            Self::File(file) => file.serialize(serializer),
        }
    }
}

struct WordOrFile;

/// The keys of a map.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct CaptionKeys {
    text: Option<String>,
    file: Option<PathBuf>,
    name: Option<Column>,
    caption: Option<Column>,
    missing: Option<Missing>,
}

impl<'de> Visitor<'de> for WordOrFile {
    type Value = CaptionSource;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("auto, none, or a map with a text or a file")
    }

    fn visit_str<E: de::Error>(self, word: &str) -> std::result::Result<Self::Value, E> {
        match word {
            "auto" => Ok(CaptionSource::Auto),
            "none" => Ok(CaptionSource::None),
            _ => Err(E::invalid_value(de::Unexpected::Str(word), &self)),
        }
    }

    fn visit_map<A: MapAccess<'de>>(self, map: A) -> std::result::Result<Self::Value, A::Error> {
        let CaptionKeys { text, file, name, caption, missing } =
            CaptionKeys::deserialize(MapAccessDeserializer::new(map))?;
        match (text, file) {
            (Some(text), None) if name.is_none() && caption.is_none() && missing.is_none() => {
                Ok(CaptionSource::Text(text))
            }
            (Some(_), _) => Err(de::Error::custom("`text`: expected no other key next to it")),
            (None, None) => Err(de::Error::missing_field("file")),
            (None, Some(file)) => {
                let missing = missing.unwrap_or_default();
                Ok(CaptionSource::File(CaptionFile { file, name, caption, missing }))
            }
        }
    }
}

impl<'de> Deserialize<'de> for Column {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> std::result::Result<Self, D::Error> {
        deserializer.deserialize_any(NameOrIndex)
    }
}

impl Serialize for Column {
    fn serialize<S: Serializer>(&self, serializer: S) -> std::result::Result<S::Ok, S::Error> {
        match self {
            Self::Name(name) => serializer.serialize_str(name),
            Self::Index(index) => serializer.serialize_u64(*index as u64),
        }
    }
}

struct NameOrIndex;

impl Visitor<'_> for NameOrIndex {
    type Value = Column;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a column by name, or by index from 0")
    }

    fn visit_str<E>(self, name: &str) -> std::result::Result<Column, E> {
        Ok(Column::Name(name.to_owned()))
    }

    fn visit_u64<E>(self, index: u64) -> std::result::Result<Column, E> {
        Ok(Column::Index(index as usize))
    }
}
