//! Captions and classes in the sidecar files of an image, `key.txt`, `key.cls` and `key.json`, as in WebDataset.

use std::fmt::Display;

use ldm_core::text;
use serde_json::Value;

/// Keys of the caption in a `.json`.
pub(crate) const CAPTION_KEYS: [&str; 3] = ["caption", "text", "prompt"];
/// Keys of the class in a `.json`.
const CLASS_KEYS: [&str; 3] = ["class", "label", "cls"];

/// Class in a file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Label {
    Number(i64),
    Name(String),
}

/// Reads the captions of a `.txt`: one per line.
pub(crate) fn captions_of_text(bytes: &[u8]) -> Result<Vec<String>, String> {
    let text = text::decode(bytes)?;
    let lines: Vec<_> =
        text.lines().map(str::trim).filter(|line| !line.is_empty()).map(str::to_owned).collect();
    // An empty file is the empty caption, which means no condition to a text model.
    Ok(if lines.is_empty() { vec![String::new()] } else { lines })
}

/// Reads the captions of a `.json`: a string or a list of strings; none where no key has one.
pub(crate) fn captions_of_json(bytes: &[u8]) -> Result<Vec<String>, String> {
    let value: Value = text::decode_json(bytes)?;
    Ok(match CAPTION_KEYS.iter().find_map(|key| value.get(key)) {
        Some(Value::String(caption)) => vec![caption.clone()],
        Some(Value::Array(captions)) => {
            captions.iter().filter_map(Value::as_str).map(str::to_owned).collect()
        }
        _ => Vec::new(),
    })
}

/// Reads the class of a `.cls`: a number or a name.
pub(crate) fn label_of_text(bytes: &[u8]) -> Result<Label, String> {
    let text = text::decode(bytes)?;
    let text = text.trim();
    if text.is_empty() {
        return Err("expected a class, got an empty file".to_owned());
    }
    label_of_word(text)
}

/// Reads a class in text: digits are a number, also where it is too large, everything else a name.
fn label_of_word(word: &str) -> Result<Label, String> {
    match word.parse() {
        Ok(number) => numbered(number),
        Err(_) if is_integer(word) => Err(outside(word)),
        Err(_) => Ok(Label::Name(word.to_owned())),
    }
}

fn is_integer(word: &str) -> bool {
    let digits = word.strip_prefix(['-', '+']).unwrap_or(word);
    !digits.is_empty() && digits.bytes().all(|byte| byte.is_ascii_digit())
}

/// Reads the class of a `.json`; none where no key has one.
pub(crate) fn label_of_json(bytes: &[u8]) -> Result<Option<Label>, String> {
    let value: Value = text::decode_json(bytes)?;
    match CLASS_KEYS.iter().find_map(|key| value.get(key)) {
        Some(Value::Number(number)) => {
            let number =
                number.as_i64().ok_or_else(|| format!("expected an integer as class, got {number}"))?;
            numbered(number).map(Some)
        }
        Some(Value::String(name)) => label_of_word(name.trim()).map(Some),
        _ => Ok(None),
    }
}

/// Upper limit of classes: every class has a name and a count in memory.
const MOST_CLASSES: i64 = 1 << 20;

fn numbered(number: i64) -> Result<Label, String> {
    if (0..MOST_CLASSES).contains(&number) { Ok(Label::Number(number)) } else { Err(outside(number)) }
}

fn outside(got: impl Display) -> String {
    format!("expected a class within 0 to {}, got {got}", MOST_CLASSES - 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn captions_are_lines_or_a_string_or_a_list() {
        assert_eq!(captions_of_text(b"a cat\n\n  two cats \n").unwrap(), ["a cat", "two cats"]);
        assert_eq!(captions_of_text(b"\n").unwrap(), [""]);
        assert_eq!(captions_of_json(br#"{"caption": "a cat", "width": 3}"#).unwrap(), ["a cat"]);
        assert_eq!(captions_of_json(br#"{"text": ["a", "b"]}"#).unwrap(), ["a", "b"]);
        assert!(captions_of_json(b"{}").unwrap().is_empty());
        assert!(captions_of_json(b"{").unwrap_err().starts_with("expected JSON, got "));
    }

    #[test]
    fn classes_are_numbers_or_names() {
        assert_eq!(label_of_text(b" 7\n").unwrap(), Label::Number(7));
        assert_eq!(label_of_text(b"cat").unwrap(), Label::Name("cat".into()));
        assert_eq!(label_of_json(br#"{"label": 7}"#).unwrap(), Some(Label::Number(7)));
        assert_eq!(label_of_json(br#"{"class": "cat"}"#).unwrap(), Some(Label::Name("cat".into())));
        assert_eq!(label_of_json(br#"{"class": "11"}"#).unwrap(), Some(Label::Number(11)));
        assert_eq!(label_of_json(b"{}").unwrap(), None);
        assert_eq!(label_of_text(b"-1").unwrap_err(), "expected a class within 0 to 1048575, got -1");
        let large = "expected a class within 0 to 1048575, got 99999999999999999999";
        assert_eq!(label_of_text(b"99999999999999999999").unwrap_err(), large);
        assert_eq!(label_of_json(br#"{"cls": 1.5}"#).unwrap_err(), "expected an integer as class, got 1.5");
    }
}
