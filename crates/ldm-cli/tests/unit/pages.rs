//! The commands of the documentation: each is one that the command line parses. Compiled into the program's unit tests,
//! since only these see its arguments.

use std::path::{Path, PathBuf};

use crate::args::Cli;

/// Markdown files below a folder.
fn pages(folder: &Path, found: &mut Vec<PathBuf>) {
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            pages(&path, found);
        } else if path.extension().is_some_and(|extension| extension == "md") {
            found.push(path);
        }
    }
}

/// Commands of the `sh` and `console` blocks of a page, with the lines at which they start. In a `console` block commands
/// follow a `$`.
fn commands(page: &str) -> Vec<(usize, String)> {
    let (mut found, mut kind, mut open): (Vec<(usize, String)>, _, _) = (Vec::new(), "", false);
    for (at, line) in page.lines().enumerate() {
        if let Some(rest) = line.trim_start().strip_prefix("```") {
            kind = rest;
            open = false;
            continue;
        }
        let (text, more) = line.strip_suffix('\\').map_or((line, false), |text| (text, true));
        match (open, kind) {
            (true, _) => found.last_mut().expect("it is open").1.push_str(text),
            (false, "sh") => found.push((at + 1, text.to_owned())),
            (false, "console") if text.starts_with("$ ") => found.push((at + 1, text[2..].to_owned())),
            _ => continue,
        }
        open = more;
    }
    found.retain(|(_, command)| program(command));
    found
}

fn program(command: &str) -> bool {
    ["ldm ", "target/release/ldm "].iter().any(|name| command.starts_with(name))
}

/// The words of a command up to a comment, a pipe or a redirection, as a shell splits them; none where the line is a
/// synopsis, with `[` or `…`.
fn words(command: &str) -> Option<Vec<String>> {
    let (mut words, mut word, mut quote): (_, Option<String>, _) = (Vec::new(), None, None);
    for c in command.chars() {
        match (quote, c) {
            (Some(end), _) if c == end => quote = None,
            (None, '"' | '\'') => {
                quote = Some(c);
                word.get_or_insert_default();
            }
            (None, ' ') => words.extend(word.take()),
            (None, '#' | '|' | '>' | '&' | ';') if word.is_none() => break,
            (None, '[' | '…') => return None,
            _ => word.get_or_insert_default().push(c),
        }
    }
    words.extend(word);
    Some(words)
}

/// The first line of the error of a command that does not parse.
fn refused(command: &str) -> Option<String> {
    let error = Cli::from_words(words(command)?.into_iter()).err().filter(clap::Error::use_stderr)?;
    Some(error.to_string().lines().next().unwrap_or_default().to_owned())
}

#[test]
fn every_command_of_the_documentation_is_parsed() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    let mut names = vec![root.join("README.md")];
    pages(&root.join("docs"), &mut names);
    pages(&root.join("crates"), &mut names);
    let (mut count, mut violations) = (0, Vec::new());
    for name in names {
        for (line, command) in commands(&std::fs::read_to_string(&name).unwrap()) {
            count += 1;
            if let Some(error) = refused(&command) {
                let shown = name.strip_prefix(&root).unwrap().display();
                violations.push(format!("{shown}:{line}: {command}: {error}"));
            }
        }
    }
    assert!(violations.is_empty(), "commands that do not parse:\n  {}", violations.join("\n  "));
    assert!(count > 100, "{count} commands");
}

#[test]
fn commands_are_found_and_refused() {
    let page = "```sh\nldm train a.yaml \\\n    train.steps=3   # a comment\ncargo build\n```\n\n```console\n$ ldm serve\nldm x\n```\nldm x\n";
    let found: Vec<usize> = commands(page).iter().map(|(line, _)| *line).collect();
    assert_eq!(found, [2, 7 + 1]);
    assert_eq!(commands(page)[0].1.split_whitespace().nth(3), Some("train.steps=3"));
    assert_eq!(refused("ldm txt2img \"a red circle\" -n 4 | head"), None);
    assert_eq!(refused("ldm sample --model M [KEY=VALUE …]"), None);
    assert!(refused("ldm txt2img --promt x").unwrap().contains("--promt"));
    assert!(refused("ldm sample -n 4").is_some(), "a required option");
}
