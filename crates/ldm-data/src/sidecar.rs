//! What stands beside an image: `key.txt`, `key.cls`, `key.json`, as WebDataset has it.

use serde_json::Value;

/// The names a `.json` may give a caption.
pub(crate) const CAPTION_KEYS: [&str; 3] = ["caption", "text", "prompt"];
/// The names a `.json` may give a class.
const CLASS_KEYS: [&str; 3] = ["class", "label", "cls"];

/// A class as a file says it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Label {
    Number(i64),
    Name(String),
}

/// The captions of a `.txt`: one a line.
pub(crate) fn captions_of_text(bytes: &[u8]) -> Result<Vec<String>, String> {
    let text = std::str::from_utf8(bytes).map_err(|_| "the caption is not UTF-8".to_owned())?;
    let lines: Vec<_> =
        text.lines().map(str::trim).filter(|line| !line.is_empty()).map(str::to_owned).collect();
    // An empty file says that the image has no words, which is what "" means to a text model.
    Ok(if lines.is_empty() { vec![String::new()] } else { lines })
}

/// The captions of a `.json`: a string or a list of them; none where no key has one.
pub(crate) fn captions_of_json(bytes: &[u8]) -> Result<Vec<String>, String> {
    let value = json(bytes)?;
    Ok(match CAPTION_KEYS.iter().find_map(|key| value.get(key)) {
        Some(Value::String(caption)) => vec![caption.clone()],
        Some(Value::Array(captions)) => {
            captions.iter().filter_map(Value::as_str).map(str::to_owned).collect()
        }
        _ => Vec::new(),
    })
}

/// The class of a `.cls`: a number or a name.
pub(crate) fn label_of_text(bytes: &[u8]) -> Result<Label, String> {
    let text = std::str::from_utf8(bytes).map_err(|_| "the class is not UTF-8".to_owned())?.trim();
    if text.is_empty() {
        return Err("the class is empty".to_owned());
    }
    label(text.parse().map_or_else(|_| Label::Name(text.to_owned()), Label::Number))
}

/// The class of a `.json`; none where no key has one.
pub(crate) fn label_of_json(bytes: &[u8]) -> Result<Option<Label>, String> {
    let value = json(bytes)?;
    match CLASS_KEYS.iter().find_map(|key| value.get(key)) {
        Some(Value::Number(number)) => {
            let number =
                number.as_i64().ok_or_else(|| format!("the class is {number}, not a whole number"))?;
            label(Label::Number(number)).map(Some)
        }
        Some(Value::String(name)) => Ok(Some(Label::Name(name.clone()))),
        _ => Ok(None),
    }
}

/// Above this a class is a mistake: every class has a name and a count in memory.
const MOST_CLASSES: i64 = 1 << 20;

fn label(label: Label) -> Result<Label, String> {
    match label {
        Label::Number(number) if !(0..MOST_CLASSES).contains(&number) => {
            Err(format!("the class must be within 0 to {}, got {number}", MOST_CLASSES - 1))
        }
        label => Ok(label),
    }
}

fn json(bytes: &[u8]) -> Result<Value, String> {
    serde_json::from_slice(bytes).map_err(|error| format!("not JSON: {error}"))
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
        assert!(captions_of_json(b"{").unwrap_err().starts_with("not JSON: "));
    }

    #[test]
    fn classes_are_numbers_or_names() {
        assert_eq!(label_of_text(b" 7\n").unwrap(), Label::Number(7));
        assert_eq!(label_of_text(b"cat").unwrap(), Label::Name("cat".into()));
        assert_eq!(label_of_json(br#"{"label": 7}"#).unwrap(), Some(Label::Number(7)));
        assert_eq!(label_of_json(br#"{"class": "cat"}"#).unwrap(), Some(Label::Name("cat".into())));
        assert_eq!(label_of_json(b"{}").unwrap(), None);
        assert_eq!(label_of_text(b"-1").unwrap_err(), "the class must be within 0 to 1048575, got -1");
        assert_eq!(label_of_json(br#"{"cls": 1.5}"#).unwrap_err(), "the class is 1.5, not a whole number");
    }
}
