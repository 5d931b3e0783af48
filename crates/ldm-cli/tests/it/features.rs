//! `docs/guide/features.md`: the commands, options, config keys and tests that it names exist.

mod fields;

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};

use ldm_testing::{Sandbox, text};

use crate::LDM;
use crate::tidy::{files, none, read, root};
use fields::Fields;

const PAGE: &str = "docs/guide/features.md";

/// A row of the tables: `| row | feature | use | keys | test |`.
struct Row<'a> {
    line: usize,
    number: &'a str,
    used: &'a str,
    keys: &'a str,
    tests: &'a str,
}

/// The rows of a page; a table line of another number of cells is a violation.
fn rows<'a>(page: &'a str, violations: &mut Vec<String>) -> Vec<Row<'a>> {
    let mut rows = Vec::new();
    for (index, line) in page.lines().enumerate() {
        let Some(line) = line.strip_prefix("| ").filter(|line| !line.starts_with("row |")) else { continue };
        let cells: Vec<&str> = line.trim_end_matches(" |").split(" | ").map(str::trim).collect();
        match cells[..] {
            [number, _, used, keys, tests] => {
                rows.push(Row { line: index + 1, number, used, keys, tests });
            }
            _ => violations.push(format!("{PAGE}:{}: expected 5 cells, got {}", index + 1, cells.len())),
        }
    }
    rows
}

/// The code spans of a cell.
pub(crate) fn spans(cell: &str) -> impl Iterator<Item = &str> {
    cell.split('`').skip(1).step_by(2)
}

/// Splits help into words; options keep their dashes.
fn words(help: &str) -> BTreeSet<&str> {
    help.split(|c: char| !(c.is_alphanumeric() || c == '-' || c == '_')).collect()
}

/// The program's help, by the words after `ldm`.
pub(crate) struct Helps {
    sandbox: Sandbox,
    known: RefCell<BTreeMap<String, Result<String, String>>>,
}

impl Helps {
    pub(crate) fn new() -> Self {
        Self { sandbox: Sandbox::new(LDM, &[]), known: RefCell::default() }
    }

    fn get(&self, command: &[&str]) -> Result<String, String> {
        let run = || {
            let output = self.sandbox.run(&[command, &["--help"]].concat());
            if output.status.success() { Ok(text(&output.stdout)) } else { Err(text(&output.stderr)) }
        };
        self.known.borrow_mut().entry(command.join(" ")).or_insert_with(run).clone()
    }

    /// Names the words of `ldm COMMAND [VALUE] [--option [value]]…` that the help of the command lacks. Words in upper
    /// case are placeholders.
    fn unknown(&self, span: &str) -> Vec<String> {
        let all: Vec<&str> = span.split(' ').skip(1).collect();
        let end = all.iter().position(|word| word.starts_with('-')).unwrap_or(all.len());
        let help = match self.get(&all[..end]) {
            Ok(help) => help,
            Err(error) => return vec![error.lines().next().unwrap_or_default().to_owned()],
        };
        let usage = help.lines().find_map(|line| line.strip_prefix("Usage: ldm ")).unwrap_or_default();
        let command = usage.split(' ').zip(&all[..end]).take_while(|(ours, named)| ours == *named).count();
        let known = words(&help);
        let placeholder = |word: &str| word.chars().all(char::is_uppercase);
        all[command..]
            .iter()
            .filter(|word| !placeholder(word) && !known.contains(*word))
            .map(|word| format!("the help of ldm {} has no {word}", all[..command].join(" ")))
            .collect()
    }
}

/// The sources of the crates, as far as the page refers to them.
pub(crate) struct Sources {
    /// `(path, text)` of every file.
    texts: BTreeMap<String, String>,
    /// Names of functions, types and modules.
    items: BTreeSet<String>,
    pub(crate) fields: Fields,
}

impl Sources {
    pub(crate) fn new() -> Self {
        let names = files("crates", ".rs");
        let texts: BTreeMap<String, String> =
            names.into_iter().map(|name| (name.clone(), read(&name))).collect();
        let (mut items, mut fields) = (BTreeSet::new(), Fields::default());
        for text in texts.iter().filter(|(name, _)| name.contains("/src/")).map(|(_, text)| text) {
            fields.add(text);
            for line in text.lines() {
                let mut words = line.split_whitespace().skip_while(|word| word.starts_with("pub"));
                if words
                    .next()
                    .is_some_and(|word| ["fn", "struct", "enum", "trait", "mod", "type"].contains(&word))
                {
                    let name = words.next().unwrap_or_default();
                    let end = name.find(|c: char| !(c.is_alphanumeric() || c == '_')).unwrap_or(name.len());
                    items.insert(name[..end].to_owned());
                }
            }
        }
        Self { texts, items, fields }
    }

    /// Checks for a test function in a file.
    fn has_test(&self, file: &str, function: &str) -> bool {
        let Some(text) = self.texts.get(file) else { return false };
        let lines: Vec<&str> = text.lines().map(str::trim_start).collect();
        let named = lines.iter().position(|line| line.starts_with(&format!("fn {function}(")));
        named.is_some_and(|at| lines[at.saturating_sub(3)..at].contains(&"#[test]"))
    }
}

/// Everything on a page that does not exist, with its line.
fn violations(page: &str, helps: &Helps, sources: &Sources) -> Vec<String> {
    let mut found = Vec::new();
    for row in rows(page, &mut found) {
        let mut say =
            |message: String| found.push(format!("{PAGE}:{}: row {}: {message}", row.line, row.number));
        check_use(row.used, helps, sources).into_iter().for_each(&mut say);
        for span in spans(row.keys) {
            let (key, value) = span.split_once(": ").map_or((span, None), |(key, value)| (key, Some(value)));
            if !sources.fields.has_path(key) {
                say(format!("no config has the key {key}"));
            }
            if let Some(value) = value.filter(|value| !sources.fields.has_value(value)) {
                say(format!("no config takes {value}"));
            }
        }
        let mut tests = 0;
        for span in spans(row.tests) {
            let (file, functions) = span.split_once(": ").unwrap_or((span, ""));
            for function in functions.split(", ") {
                tests += 1;
                if !sources.has_test(file, function) {
                    say(format!("{file} has no test {function}"));
                }
            }
        }
        let reason = row.used.strip_prefix("**no**").map(|rest| rest.strip_prefix(": ").unwrap_or_default());
        match reason {
            Some("") => say("expected a reason after **no**".into()),
            None if tests == 0 => say("expected a test, got none".into()),
            _ => {}
        }
    }
    found
}

/// Checks the column `use`: commands, options of the command before, items of the crates, and folders of configs.
pub(crate) fn check_use(used: &str, helps: &Helps, sources: &Sources) -> Vec<String> {
    let (mut found, mut command) = (Vec::new(), None);
    for span in spans(used) {
        if span.starts_with("ldm ") {
            let end = span.find(" -").unwrap_or(span.len());
            command = Some(&span[..end]);
            found.extend(helps.unknown(span));
        } else if span.starts_with('-') {
            match command {
                Some(command) => found.extend(helps.unknown(&format!("{command} {span}"))),
                None => found.push(format!("expected a command before {span}")),
            }
        } else if span.starts_with("configs/") {
            if !root().join(span).exists() {
                found.push(format!("there is no {span}"));
            }
        } else if span.contains("::") || is_type_name(span) {
            let absent = span.split("::").filter(|name| !sources.items.contains(*name));
            // The façade renames the crates.
            let absent = absent.filter(|name| !root().join(format!("crates/ldm-{name}")).is_dir());
            found.extend(absent.map(|name| format!("no crate defines {name}")));
        }
    }
    found
}

fn is_type_name(span: &str) -> bool {
    span.starts_with(char::is_uppercase)
        && span.chars().all(char::is_alphanumeric)
        && span.contains(char::is_lowercase)
}

#[test]
fn everything_named_exists() {
    none("docs/guide/features.md names what exists", violations(&read(PAGE), &Helps::new(), &Sources::new()));
}

#[test]
fn every_row_is_there_once() {
    let (page, mut violations) = (read(PAGE), Vec::new());
    let rows = rows(&page, &mut violations);
    none("a row has five cells", violations);
    let numbers: Vec<&str> = rows.iter().map(|row| row.number).collect();
    let peers = numbers.len().saturating_sub(120);
    let compvis = (1..=120).map(|number| number.to_string());
    let expected: Vec<String> = compvis.chain((1..=peers).map(|number| format!("P{number}"))).collect();
    assert_eq!(numbers, expected);
    assert!(peers >= 39, "the features of other programs");
}

/// A row whose names exist.
const ROW: &str = "| 1 | an example | `ldm sample --init-noise --sampler plms`, or `--no-ema`; `ldm bench sample`; in Rust \
                   `Pipeline::open`; `configs/models` | `disc_start`, `train.keep_best.count`, `attn_type: linear` | \
                   `crates/ldm-cli/tests/it/features.rs: everything_named_exists, every_row_is_there_once` |";

/// One changed name is one violation, for each kind of name.
#[test]
fn a_name_that_does_not_exist_is_reported() {
    let (helps, sources) = (Helps::new(), Sources::new());
    let of = |row: &str| violations(row, &helps, &sources);
    assert_eq!(of(ROW), [""; 0]);
    let check = |from: &str, to: &str, expected: &str| {
        assert!(ROW.contains(from), "{from}");
        let found = of(&ROW.replacen(from, to, 1));
        assert!(matches!(&found[..], [one] if one.contains(expected)), "{from} to {to}: {found:?}");
    };
    check("--init-noise", "--first-noise", "the help of ldm sample has no --first-noise");
    check("--sampler plms", "--sampler plmz", "the help of ldm sample has no plmz");
    check("`--no-ema`", "`--no-emu`", "the help of ldm sample has no --no-emu");
    check("bench sample", "branch sample", "unrecognized subcommand 'branch'");
    check("bench sample", "bench sampling", "invalid value 'sampling'");
    check("Pipeline::open", "Pipeline::openly", "no crate defines openly");
    check("configs/models", "configs/modals", "there is no configs/modals");
    check("disc_start", "disc_begin", "no config has the key disc_begin");
    check("keep_best.count", "keep_best.number", "no config has the key train.keep_best.number");
    check("attn_type: linear", "attn_type: linea", "no config takes linea");
    check("every_row_is", "every_line_is", "features.rs has no test every_line_is_there_once");
    let tests = "`crates/ldm-cli/tests/it/features.rs: everything_named_exists, every_row_is_there_once`";
    check(tests, "–", "expected a test, got none");
    check("| an example |", "|", "expected 5 cells, got 4");
    let absent = |reason: &str| of(&format!("| 1 | an example | **no**{reason} | – | – |"));
    assert_eq!(absent(": not built"), [""; 0]);
    assert!(matches!(&absent("")[..], [one] if one.contains("expected a reason")));
}
