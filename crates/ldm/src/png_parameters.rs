//! The `parameters` text of a PNG, read back.

use std::path::Path;

use ldm_core::{Error, PngTexts, Result};

use crate::web_ui::sampler_of;

/// The settings in the text `parameters` of a PNG, as [`Parameters`](crate::Parameters) or AUTOMATIC1111's web UI write
/// them: the prompt, `Negative prompt: …`, and a line of `KEY: VALUE`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PngParameters {
    /// The prompt; none where the text begins with the last line.
    pub prompt: Option<String>,
    /// The negative prompt, or an empty text.
    pub negative: String,
    /// The last line of several before the fields that are ours, such as `class: dog`.
    pub heading: Option<(String, String)>,
    /// The fields of the last line, in order.
    pub fields: Vec<(String, String)>,
}

/// Headings of tasks other than text to image.
const HEADINGS: [&str; 7] = ["class", "inpaint", "outpaint", "upscale", "layout", "map", "knn2img"];
const NEGATIVE: &str = "Negative prompt: ";

impl PngParameters {
    /// Reads the text of the PNG at `path`.
    ///
    /// # Errors
    /// As [`PngTexts::read`]; [`Error::Format`] without such a text.
    pub fn read(path: &Path) -> Result<Self> {
        let texts = PngTexts::read(path)?.texts;
        let parsed = texts.get("parameters").and_then(|text| Self::parse(text));
        parsed.ok_or_else(|| {
            let got = if texts.contains_key("parameters") { "another" } else { "none" };
            Error::format(path, format!("expected a text `parameters` with a line of `Steps: …`, got {got}"))
        })
    }

    /// Parses the text; none where its last line does not begin with `Steps: `.
    pub fn parse(text: &str) -> Option<Self> {
        let text = text.trim_end();
        let (before, last) =
            text.rsplit_once('\n').map_or((None, text), |(before, last)| (Some(before), last));
        if !last.starts_with("Steps: ") {
            return None;
        }
        let fields = fields(last);
        let ours = fields.iter().any(|(key, value)| key == "Version" && value.starts_with("ldm "));
        let mut lines: Vec<&str> = before.map_or(Vec::new(), |before| before.split('\n').collect());
        let heading = lines.last().filter(|_| ours).and_then(|line| {
            let (key, value) = line.split_once(": ")?;
            HEADINGS.contains(&key).then(|| (key.to_owned(), value.to_owned()))
        });
        if heading.is_some() {
            lines.pop();
        }
        let split = lines.iter().position(|line| line.starts_with(NEGATIVE)).unwrap_or(lines.len());
        let (prompt, negative) = lines.split_at(split);
        let prompt = (!lines.is_empty()).then(|| prompt.join("\n"));
        let negative = negative.join("\n").strip_prefix(NEGATIVE).unwrap_or_default().to_owned();
        Some(Self { prompt, negative, heading, fields })
    }

    /// Our name of the sampler, and the spacing that a web UI names with it or next to it; none where we have no such
    /// sampler.
    pub fn sampler(&self) -> (Option<&'static str>, Option<&'static str>) {
        self.get("Sampler").map_or((None, None), |name| sampler_of(name, self.get("Schedule type")))
    }

    /// The value of a field.
    pub fn get(&self, key: &str) -> Option<&str> {
        self.fields.iter().find(|(known, _)| known == key).map(|(_, value)| value.as_str())
    }
}

/// The fields `KEY: VALUE, …`; a value that begins with `"` is a JSON string.
fn fields(line: &str) -> Vec<(String, String)> {
    let mut fields = Vec::new();
    let mut rest = line.trim();
    while let Some((key, after)) = rest.split_once(':') {
        let after = after.trim_start();
        let mut quoted = serde_json::Deserializer::from_str(after).into_iter::<String>();
        let quoted_value = quoted.next().filter(|_| after.starts_with('"'));
        let (value, end) = if let Some(Ok(value)) = quoted_value {
            (value, quoted.byte_offset())
        } else {
            // Lists of numbers contain commas without a space.
            let end = after.find(", ").unwrap_or(after.len());
            (after[..end].to_owned(), end)
        };
        fields.push((key.trim().to_owned(), value.trim().to_owned()));
        rest = after[end..].trim_start_matches([',', ' ']);
    }
    fields
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn texts_of_web_uis_are_parsed() {
        let text = "a (red:1.2) circle,\nwide\nNegative prompt: blurry,\n\"text\"\nSteps: 20, Sampler: DPM++ 2M Karras, CFG \
                    scale: 7, Seed: 5, Size: 512x768, Lora hashes: \"a: 1f, b: 2e\", Version: v1.9.4";
        let parsed = PngParameters::parse(text).unwrap();
        assert_eq!(parsed.prompt.as_deref(), Some("a (red:1.2) circle,\nwide"));
        assert_eq!((parsed.negative.as_str(), &parsed.heading), ("blurry,\n\"text\"", &None));
        let got = |key| parsed.get(key);
        assert_eq!((got("Sampler"), got("CFG scale")), (Some("DPM++ 2M Karras"), Some("7")));
        assert_eq!((got("Lora hashes"), got("Version")), (Some("a: 1f, b: 2e"), Some("v1.9.4")));
    }

    #[test]
    fn our_texts_are_parsed() {
        let parse = |text: &str| PngParameters::parse(&format!("{text}, Version: ldm 0.1.0")).unwrap();
        let class = parse("class: dog\nSteps: 2, Sampler: ddim, Spacing: 999,1");
        assert_eq!((&class.prompt, class.heading.as_ref().unwrap().1.as_str()), (&None, "dog"));
        assert_eq!(class.get("Spacing"), Some("999,1"));
        assert_eq!(parse("Steps: 2").prompt, None);
        assert_eq!(parse("\nSteps: 2").prompt.as_deref(), Some(""));
        let filled = parse("a cat\nNegative prompt: x\ninpaint: a.png, m.png\nSteps: 2");
        assert_eq!((filled.prompt.as_deref(), filled.negative.as_str()), (Some("a cat"), "x"));
        assert_eq!(filled.heading.unwrap().0, "inpaint");
    }

    #[test]
    fn other_texts_are_none() {
        for text in ["", "a cat", "a cat\nSize: 3x3", "Steps", "\n\n"] {
            assert_eq!(PngParameters::parse(text), None, "{text}");
        }
    }
}
