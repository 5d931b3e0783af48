//! The table of contents, and pages that quote the program: `docs/start/coming-from.md`, whose tables name options and config keys, and
//! `docs/guide/troubleshooting.md`, whose tables name errors.

use crate::features::{Helps, Sources, check_use, spans};
use crate::tidy::{files, none, read};

const COMING_FROM: &str = "docs/start/coming-from.md";
const TROUBLESHOOTING: &str = "docs/guide/troubleshooting.md";

/// The rows of the tables of a page: line, header and cells.
fn tables(page: &str) -> Vec<(usize, Vec<&str>, Vec<&str>)> {
    let cells = |line| str::trim_matches(line, ['|', ' ']).split(" | ").map(str::trim).collect::<Vec<&str>>();
    let (mut found, mut header): (Vec<_>, Option<Vec<&str>>) = (Vec::new(), None);
    for (at, line) in page.lines().enumerate() {
        match &header {
            _ if !line.starts_with('|') => header = None,
            None => header = Some(cells(line)),
            Some(_) if line.starts_with("|---") => {}
            Some(header) => found.push((at + 1, header.clone(), cells(line))),
        }
    }
    found
}

/// A span without values that no help lists: numbers, paths and `NAME=VALUE`.
fn without_values(span: &str) -> String {
    let free = |word: &&str| word.starts_with('-') || !word.contains(['.', ',', '=', ':']);
    span.split(' ').filter(free).collect::<Vec<_>>().join(" ")
}

/// A key of a config, or `KEY: VALUE`.
fn is_key(span: &str) -> bool {
    let name = |text: &str| {
        !text.is_empty()
            && text.chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || ['_', '.'].contains(&c))
    };
    name(span) || span.split_once(": ").is_some_and(|(key, value)| name(key) && name(value))
}

/// The names in the last cell of a row that `ldm` does not have. The command of the header is that of an option without
/// one; a header that names keys makes every other name a key of the config.
fn unknown(header: &str, cell: &str, helps: &Helps, sources: &Sources) -> Vec<String> {
    let command = spans(header).find(|span| span.starts_with("ldm "));
    let named: Vec<String> = command
        .into_iter()
        .chain(spans(cell))
        .filter(|span| span.starts_with("ldm ") || span.starts_with('-') || span.contains("::"))
        .map(|span| format!("`{}`", without_values(span)))
        .collect();
    let mut found = check_use(&named.join(" "), helps, sources);
    for span in spans(cell)
        .filter(|span| is_key(span) && (header.starts_with("key of") || span.starts_with("train.")))
    {
        let (key, value) = span.split_once(": ").map_or((span, None), |(key, value)| (key, Some(value)));
        if !sources.fields.has_path(&key.replace(".params", "")) {
            found.push(format!("no config has the key {key}"));
        }
        let value = value.filter(|value| !sources.fields.has_value(value));
        found.extend(value.map(|value| format!("no config takes {value}")));
    }
    found
}

#[test]
fn every_page_is_in_the_book() {
    let summary = read("docs/SUMMARY.md");
    let pages = files("docs", ".md").into_iter().filter(|name| !name.starts_with("docs/tools/"));
    let absent = pages.filter(|name| {
        let page = name.trim_start_matches("docs/");
        page != "SUMMARY.md" && !summary.contains(&format!("]({page})"))
    });
    none("docs/SUMMARY.md lists every page", absent.collect());
}

#[test]
fn options_and_keys_of_coming_from_exist() {
    let (page, helps, sources) = (read(COMING_FROM), Helps::new(), Sources::new());
    let rows = tables(&page);
    assert!(rows.len() > 100, "{} rows", rows.len());
    let mut violations = Vec::new();
    for (line, header, cells) in rows {
        if cells.len() != header.len() {
            violations.push(format!(
                "{COMING_FROM}:{line}: expected {} cells, got {}",
                header.len(),
                cells.len()
            ));
            continue;
        }
        let (header, cell) = (header.last().unwrap(), cells.last().unwrap());
        let names = unknown(header, cell, &helps, &sources);
        violations.extend(names.into_iter().map(|name| format!("{COMING_FROM}:{line}: {name}")));
    }
    none("the tables name what exists", violations);
    for (header, cell, expected) in [
        ("`ldm txt2img`", "`--ddim-steps`", "no --ddim-steps"),
        ("command", "`ldm simple --eta`", "unrecognized subcommand"),
        ("key of `ldm train`", "`train.step`", "no config has the key train.step"),
        ("key of `ldm train`", "`ldm train --resumee`", "no --resumee"),
    ] {
        let found = unknown(header, cell, &helps, &sources);
        assert!(found.iter().any(|name| name.contains(expected)), "{cell}: {found:?}");
    }
}

/// The sources as one text in which a string is on one line, and every placeholder is `…`.
fn strings() -> String {
    let mut all = String::new();
    for name in files("crates", ".rs").into_iter().filter(|name| name.contains("/src/")) {
        let text = read(&name);
        let mut rest = text.as_str();
        while let Some((before, after)) = rest.split_once("\\\n") {
            all.push_str(before);
            rest = after.trim_start();
        }
        all.push_str(rest);
    }
    let (mut plain, mut depth) = (String::new(), 0_usize);
    for line in all.lines() {
        // Placeholders are short and on one line; other braces are code.
        let mut rest = line;
        while let Some((before, after)) = rest.split_once('{') {
            plain.push_str(before);
            match after.split_once('}') {
                Some((inside, behind)) if !inside.contains(['{', ' ', '"']) => {
                    plain.push('…');
                    rest = behind;
                }
                _ => {
                    plain.push('{');
                    rest = after;
                }
            }
            depth += 1;
        }
        plain.push_str(rest);
        plain.push('\n');
    }
    assert!(depth > 1000);
    plain
}

/// The parts of a sentence between its `…` that no source has, or the sentence if too little of it is constant.
fn absent<'a>(sentence: &'a str, sources: &str) -> Vec<&'a str> {
    let parts: Vec<&str> =
        sentence.split('…').map(|part| part.trim_matches([' ', ',', ':', ';', '(', ')'])).collect();
    if parts.iter().map(|part| part.len()).sum::<usize>() < 12 {
        return vec![sentence];
    }
    parts.into_iter().filter(|part| !sources.contains(part)).collect()
}

#[test]
fn errors_of_troubleshooting_exist() {
    let (page, sources) = (read(TROUBLESHOOTING), strings());
    let rows = tables(&page);
    assert!(rows.len() > 40, "{} rows", rows.len());
    let mut violations = Vec::new();
    for (line, header, cells) in rows {
        assert_eq!(header[0], "message", "{TROUBLESHOOTING}:{line}");
        let sentences: Vec<&str> = spans(cells[0]).collect();
        if sentences.len() != 1 || cells.len() != 3 {
            violations.push(format!("{TROUBLESHOOTING}:{line}: expected a message, a cause and a remedy"));
        }
        let parts = sentences.iter().flat_map(|sentence| absent(sentence, &sources));
        violations.extend(parts.map(|part| format!("{TROUBLESHOOTING}:{line}: no source says {part:?}")));
    }
    none("the errors of the page are those of the program", violations);
    assert_eq!(absent("expected height and width in multiples of …, got it", &sources), ["got it"]);
    assert_eq!(absent("…: expected …", &sources), ["…: expected …"]);
}
