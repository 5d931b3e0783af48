//! Captions in tables: lines of columns (`.tsv`, `.csv`) or of JSON objects (`.jsonl`).

use csv::ReaderBuilder;
use serde_json::Value;

use crate::labels::caption_file::{Captions, Column, texts};
use crate::labels::sidecar::CAPTION_KEYS;

/// Key or column of the name of an image, as in Hugging Face's image folders.
const NAME_KEY: &str = "file_name";

/// Files with the captions of a Hugging Face image folder.
pub(crate) const METADATA_FILES: [&str; 2] = ["metadata.jsonl", "metadata.csv"];

/// Columns of a table of captions.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct CaptionColumns<'a> {
    pub(crate) name: Option<&'a Column>,
    pub(crate) caption: Option<&'a Column>,
    /// Tables without a column of captions have none, instead of being wrong.
    pub(crate) may_lack: bool,
}

impl CaptionColumns<'_> {
    /// Reads a table of tabs, in which no character is special.
    pub(crate) fn tabs(self, text: &str) -> Result<Captions, String> {
        let rows = text.lines().enumerate().filter(|(_, line)| !line.trim().is_empty());
        self.rows(rows.map(|(number, line)| Ok((number + 1, line.split('\t').map(str::to_owned).collect()))))
    }

    /// Reads a table of commas, with quotes (RFC 4180).
    pub(crate) fn commas(self, text: &str) -> Result<Captions, String> {
        let mut reader = ReaderBuilder::new().has_headers(false).flexible(true).from_reader(text.as_bytes());
        self.rows(reader.records().map(|record| {
            let record = record.map_err(|error| format!("expected CSV, got {error}"))?;
            let line = record.position().map_or(0, csv::Position::line) as usize;
            Ok((line, record.iter().map(str::to_owned).collect()))
        }))
    }

    fn rows(
        self,
        mut rows: impl Iterator<Item = Result<(usize, Vec<String>), String>>,
    ) -> Result<Captions, String> {
        let mut captions = Captions::new();
        let Some(first) = rows.next().transpose()? else { return Ok(captions) };
        let is_named = [self.name, self.caption].iter().any(|column| matches!(column, Some(Column::Name(_))));
        let has_head = is_named || first.1.iter().any(|field| field.trim() == NAME_KEY);
        let (head, body) = if has_head { (first.1, None) } else { (Vec::new(), Some(Ok(first))) };
        let place = |column: Option<&Column>, keys: &[&str], default: usize| match column {
            Some(Column::Index(index)) => Ok(*index),
            None if !has_head => Ok(default),
            column => {
                let keys = if let Some(Column::Name(name)) = column { &[name.as_str()][..] } else { keys };
                let found = keys.iter().find_map(|key| head.iter().position(|each| each.trim() == *key));
                found.or((column.is_none() && is_named).then_some(default)).ok_or_else(|| {
                    format!("expected a column `{}`, got {}", keys.join("` or `"), head.join(", "))
                })
            }
        };
        let caption = match place(self.caption, &CAPTION_KEYS, 1) {
            Err(_) if self.may_lack => return Ok(captions),
            found => found?,
        };
        let name = place(self.name, &[NAME_KEY], 0)?;
        for row in body.into_iter().chain(rows) {
            let (line, fields) = row?;
            let field = |index: usize| {
                fields.get(index).map(|field| field.trim()).ok_or_else(|| {
                    format!("line {line}: expected {} columns, got {}", index + 1, fields.len())
                })
            };
            captions.entry(field(name)?.to_owned()).or_default().push(field(caption)?.to_owned());
        }
        Ok(captions)
    }

    /// Reads a line of JSON for each image.
    pub(crate) fn json_lines(self, text: &str) -> Result<Captions, String> {
        let key = |column: Option<&Column>| match column {
            None => Ok(None),
            Some(Column::Name(name)) => Ok(Some(name.clone())),
            Some(Column::Index(index)) => {
                Err(format!("expected the name of a key in a .jsonl, got the column {index}"))
            }
        };
        let (name, caption) = (key(self.name)?, key(self.caption)?);
        let name = name.as_deref().unwrap_or(NAME_KEY);
        let mut captions = Captions::new();
        for (number, line) in text.lines().enumerate().filter(|(_, line)| !line.trim().is_empty()) {
            let in_line = |what: String| format!("line {}: {what}", number + 1);
            let value: Value =
                serde_json::from_str(line).map_err(|error| in_line(format!("expected JSON, got {error}")))?;
            let image =
                value[name].as_str().ok_or_else(|| in_line(format!("expected `{name}`, got none")))?;
            let found = match &caption {
                Some(key) => value.get(key),
                None => CAPTION_KEYS.iter().find_map(|key| value.get(key)),
            };
            let wanted = caption.as_deref().unwrap_or("caption");
            match found.and_then(texts) {
                Some(found) => captions.entry(image.to_owned()).or_default().extend(found),
                None if self.may_lack => {}
                None => return Err(in_line(format!("expected `{wanted}`, got none"))),
            }
        }
        Ok(captions)
    }
}
