//! The language of the workspace, its names, and the lengths of files and functions.

use std::collections::BTreeMap;
use std::path::Path;

use super::{files, none, read, rust_files};
use crate::tidy::source::{code, without_tests};

/// Words that the workspace does not use, each with the one it uses.
const BANNED: [(&str, &str); 14] = [
    ("picture", "image"),
    ("pictures", "images"),
    ("ladder", "noise levels"),
    ("rung", "step"),
    ("told", "conditioned on"),
    ("heeded", "followed"),
    ("held back", "held-out"),
    ("held-back", "held-out"),
    ("no numbers", "NaN or Inf"),
    ("drawn scenes", "synthetic scenes"),
    ("learned by heart", "overfit"),
    ("running average", "EMA"),
    ("running averages", "EMA"),
    ("the reference", "CompVis, or the name of the code"),
];

/// The end of a path, a word in it, and the reason.
const MAY_SAY: [(&str, &str, &str); 4] = [
    ("tests/it/tidy/words.rs", "", "this list"),
    ("sdapi/answer.rs", "picture", "a value of AUTOMATIC1111's API"),
    ("prompts.json", "", "prompts of people"),
    ("latents/statistics.rs", "pictures", "the key of files written before 0.1"),
];

/// Names that several crates define, each with its reason.
const MAY_REPEAT: [(&str, &str); 2] = [("Readme", "a doctest of each crate"), ("Err", "an associated type")];

/// Functions of more than 80 lines: the end of the path, the name, and the reason.
const MAY_BE_LONG: [(&str, &str, &str); 1] = [("/pickle.rs", "step", "one arm per opcode of pickle")];

fn texts() -> Vec<String> {
    let configs = files("configs", ".yaml");
    let docs = [files("docs", ".md"), files("crates", ".md"), vec!["README.md".into()]].concat();
    let scripts = [files("docs", ".py"), files("crates", ".py")].concat();
    [rust_files(), docs, configs, scripts].concat()
}

#[test]
fn words_are_the_fields_own() {
    let mut violations = Vec::new();
    for name in texts() {
        let may = |word: &str| {
            MAY_SAY.iter().any(|(end, each, _)| name.contains(end) && (each.is_empty() || *each == word))
        };
        for (number, line) in read(&name).lines().enumerate() {
            let lower = line.to_lowercase();
            for (word, instead) in BANNED {
                if contains_word(&lower, word) && !may(word) {
                    violations.push(format!("{name}:{}: {word}; try {instead}", number + 1));
                }
            }
        }
    }
    none("the workspace speaks the field's language", violations);
}

fn contains_word(line: &str, word: &str) -> bool {
    line.match_indices(word).any(|(at, _)| {
        let letter = |c: Option<char>| c.is_some_and(|c| c.is_alphanumeric() || c == '_');
        !letter(line[..at].chars().next_back()) && !letter(line[at + word.len()..].chars().next())
    })
}

#[test]
fn docs_and_headings_begin_with_a_noun_or_a_verb() {
    let words = ["What ", "Whose ", "Which ", "Whether ", "How ", "Where "];
    let relative = |text: &str| words.iter().any(|word| text.starts_with(word));
    let mut violations = Vec::new();
    for name in texts() {
        let page = Path::new(&name).extension().is_some_and(|extension| extension == "md");
        let (mut in_docs, mut in_code) = (false, false);
        for (number, line) in read(&name).lines().enumerate() {
            let text = line.trim_start();
            // Code blocks of a page hold examples, also bad ones.
            in_code ^= page && text.starts_with("```");
            if in_code {
                continue;
            }
            let docs = text.strip_prefix("/// ").or_else(|| text.strip_prefix("//! "));
            let heading = page && text.starts_with('#');
            let first =
                docs.filter(|_| !in_docs).or(heading.then(|| text.trim_start_matches('#').trim_start()));
            if first.is_some_and(relative) {
                violations.push(format!("{name}:{}: {text}", number + 1));
            }
            in_docs = text.starts_with("///") || text.starts_with("//!");
        }
    }
    none("docs begin with a noun phrase or a verb", violations);
}

#[test]
fn a_type_name_is_defined_once() {
    let mut places: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for name in rust_files().into_iter().filter(|name| name.contains("/src/") || name.starts_with("benches/"))
    {
        let code = code(&read(&name));
        for (number, line) in without_tests(&code).lines().enumerate() {
            // Associated types are indented.
            let mut words = line.split_whitespace().skip_while(|word| word.starts_with("pub"));
            let kind = words.next().unwrap_or_default();
            let indented = line.starts_with(' ');
            if ["struct", "enum", "trait", "union", "type"].contains(&kind) && !(indented && kind == "type") {
                let item = words.next().unwrap_or_default();
                let end = item.find(|c: char| !c.is_alphanumeric() && c != '_').unwrap_or(item.len());
                places.entry(item[..end].to_owned()).or_default().push(format!("{name}:{}", number + 1));
            }
        }
    }
    let repeated = places
        .into_iter()
        .filter(|(name, places)| places.len() > 1 && MAY_REPEAT.iter().all(|(each, _)| each != name))
        .map(|(name, places)| format!("{name}: {}", places.join(", ")));
    none("a type name is defined once in the workspace", repeated.collect());
}

#[test]
fn functions_are_short() {
    let mut violations = Vec::new();
    for name in rust_files().into_iter().filter(|name| name.contains("/src/")) {
        let code = code(&read(&name));
        let lines: Vec<&str> = without_tests(&code).lines().collect();
        for (at, line) in lines.iter().enumerate() {
            let Some((head, rest)) = line.split_once("fn ") else { continue };
            let head = head.trim_start();
            let plain = head.split_whitespace().all(|word| {
                word.starts_with("pub") || ["const", "async", "unsafe", "extern"].contains(&word)
            });
            if !plain {
                continue;
            }
            // rustfmt closes a function at the indent of its first line.
            let indent = line.len() - line.trim_start().len();
            let close = format!("{}}}", " ".repeat(indent));
            let length = lines[at..].iter().position(|line| *line == close).map_or(1, |end| end + 1);
            let item: String = rest.chars().take_while(|c| c.is_alphanumeric() || *c == '_').collect();
            let may = MAY_BE_LONG.iter().any(|(end, each, _)| name.ends_with(end) && *each == item);
            if length > 80 && !may {
                violations.push(format!("{name}:{}: {item} has {length} lines", at + 1));
            }
        }
    }
    none("a function has at most 80 lines", violations);
}

#[test]
fn the_command_line_is_small() {
    let names = files("crates/ldm-cli/src", ".rs");
    let lines: usize = names.iter().map(|name| read(name).lines().count()).sum();
    assert!(lines <= 5400, "crates/ldm-cli/src: expected at most 5400 lines, got {lines}");
}
