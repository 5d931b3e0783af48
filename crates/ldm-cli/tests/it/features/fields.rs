//! Fields and values of the config types, from the text of the sources.

use std::collections::{BTreeMap, BTreeSet};

/// The fields of a type, each with the names in its type.
type Members = BTreeMap<String, BTreeSet<String>>;

/// Fields by type, and the values of enums.
#[derive(Default)]
pub(crate) struct Fields {
    of: BTreeMap<String, Members>,
    /// Names in the variants of enums, which a path goes through.
    through: BTreeMap<String, BTreeSet<String>>,
    values: BTreeSet<String>,
    /// Keys that choose a variant, such as `target`.
    tags: BTreeSet<String>,
}

impl Fields {
    /// Reads the types of a source file: `pub` fields, fields with a serde attribute, variants and strings.
    pub(crate) fn add(&mut self, text: &str) {
        let (mut item, mut attribute) = (None, false);
        for line in text.lines() {
            let trimmed = line.trim_start();
            let declared = trimmed.trim_start_matches("pub(crate) ").trim_start_matches("pub ");
            if let Some(name) = ["struct ", "enum "].iter().find_map(|word| declared.strip_prefix(word)) {
                item = identifiers(name).next().map(str::to_owned);
            } else if line == "}" {
                item = None;
            }
            if let Some(item) = &item {
                self.add_member(item, declared, attribute || trimmed.starts_with("pub"));
            }
            self.tags.extend(
                line.split("(tag = ").skip(1).filter_map(|rest| quoted(rest).next()).map(str::to_owned),
            );
            // Values that are compared as text, such as `__is_unconditional__`.
            self.values.extend(quoted(line).filter(|value| is_name(value)).map(str::to_owned));
            attribute = trimmed.starts_with("#[serde(");
        }
    }

    /// Adds a line of a type: a field, if it is `read` from configs, or a variant.
    fn add_member(&mut self, item: &str, line: &str, read: bool) {
        if let Some((name, kind)) = line.split_once(": ").filter(|(name, _)| is_name(name)) {
            if read {
                let members = self.of.entry(item.to_owned()).or_default();
                members.entry(name.to_owned()).or_default().extend(identifiers(kind).map(str::to_owned));
            }
        } else if line.starts_with(char::is_uppercase) {
            let mut names = identifiers(line);
            self.values.extend(names.next().map(snake_case));
            self.through.entry(item.to_owned()).or_default().extend(names.map(str::to_owned));
        }
    }

    /// Checks for a field, and for each further part of a dotted path that the type of the part before has it.
    pub(crate) fn has_path(&self, path: &str) -> bool {
        if self.tags.contains(path) {
            return true;
        }
        let mut types: Option<BTreeSet<String>> = None;
        for name in path.split('.') {
            let owners =
                self.of.iter().filter(|(item, _)| types.as_ref().is_none_or(|types| types.contains(*item)));
            let found: Vec<&BTreeSet<String>> = owners.filter_map(|(_, members)| members.get(name)).collect();
            if found.is_empty() {
                return false;
            }
            let mut next: BTreeSet<String> = found.into_iter().flatten().cloned().collect();
            next.extend(next.clone().iter().filter_map(|item| self.through.get(item)).flatten().cloned());
            types = Some(next);
        }
        true
    }

    /// Checks for a variant, a serde name, or a string of the code.
    pub(crate) fn has_value(&self, value: &str) -> bool {
        ["true", "false"].contains(&value) || value.parse::<f64>().is_ok() || self.values.contains(value)
    }
}

fn is_name(text: &str) -> bool {
    !text.is_empty() && text.chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_')
}

/// The parts of a text between pairs of quotes.
fn quoted(text: &str) -> impl Iterator<Item = &str> {
    text.split('"').skip(1).step_by(2)
}

fn identifiers(text: &str) -> impl Iterator<Item = &str> {
    text.split(|c: char| !(c.is_alphanumeric() || c == '_')).filter(|word| !word.is_empty())
}

/// `SquareCropFirst` as `square_crop_first`, the form that serde's `snake_case` gives it.
fn snake_case(name: &str) -> String {
    let mut snake = String::new();
    for (at, c) in name.char_indices() {
        if at > 0 && c.is_uppercase() {
            snake.push('_');
        }
        snake.extend(c.to_lowercase());
    }
    snake
}
