//! Text of files and users on a terminal.

use std::borrow::Cow;

/// Longest word in characters: a path may have more than a name.
const LONGEST_WORD: usize = 1000;
/// Longest line in characters: the names of a whole model's parameters.
const LONGEST_LINE: usize = 200_000;

/// Returns text with its long words and lines cut: a name or a value in a file may have any length.
pub fn shortened(text: &str) -> Cow<'_, str> {
    if text.len() <= LONGEST_WORD {
        return Cow::Borrowed(text);
    }
    let line = |line: &str| {
        let words: Vec<_> = line.split(' ').map(|word| cut(word, LONGEST_WORD)).collect();
        cut(&words.join(" "), LONGEST_LINE).into_owned()
    };
    Cow::Owned(text.split('\n').map(line).collect::<Vec<_>>().join("\n"))
}

/// The first `longest` characters, and a mark where there are more.
fn cut(text: &str, longest: usize) -> Cow<'_, str> {
    match text.char_indices().nth(longest) {
        Some((end, _)) => Cow::Owned(format!("{}…", &text[..end])),
        None => Cow::Borrowed(text),
    }
}

/// Returns text with characters escaped that act on a terminal: names in archives, file names and the texts of images may
/// have any.
pub fn escaped(text: &str) -> Cow<'_, str> {
    let acts = |c: char| is_unsafe(c) && !matches!(c, '\n' | '\t');
    if !text.contains(acts) {
        return Cow::Borrowed(text);
    }
    let escape = |c: char| if acts(c) { c.escape_unicode().to_string() } else { c.to_string() };
    Cow::Owned(text.chars().map(escape).collect())
}

/// Returns whether a character is a control character, or changes the direction of the text after it.
pub fn is_unsafe(c: char) -> bool {
    c.is_control() || matches!(c, '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}

/// Returns text as one line: a name in a file may have line breaks, and pretend to be another message.
pub fn one_line(text: &str) -> String {
    text.replace('\n', "\\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn control_characters_are_escaped_but_not_line_breaks() {
        assert_eq!(escaped("a\tb\nü — 文"), "a\tb\nü — 文");
        assert!(matches!(escaped("plain"), Cow::Borrowed(_)));
        assert_eq!(escaped("\u{1b}]0;t\u{7}\r\u{9b}31m\u{7f}"), "\\u{1b}]0;t\\u{7}\\u{d}\\u{9b}31m\\u{7f}");
        assert_eq!(escaped("\u{202e}gnp"), "\\u{202e}gnp");
    }

    #[test]
    fn long_words_and_lines_are_cut() {
        let (whole, long) = ("ü".repeat(LONGEST_WORD), "ü".repeat(LONGEST_WORD + 1));
        assert_eq!(shortened(&whole), whole);
        assert_eq!(shortened(&format!("a\n{long} c\nb")), format!("a\n{whole}… c\nb"));
        let line = "ab ".repeat(LONGEST_LINE);
        assert_eq!(shortened(&line), format!("{}…", &line[..LONGEST_LINE]));
    }
}
