//! AUTOMATIC1111's syntax of weighted prompts.

use ldm_core::{Error, Result};

/// The factor of `(a)`; `[a]` divides by it.
const FACTOR: f64 = 1.1;
/// The word that ends a chunk.
const BREAK: &str = "BREAK";
/// Characters that are syntax, or may be.
const SYNTAX: [char; 6] = ['\\', '(', ')', '[', ']', ':'];

/// A part of a prompt.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Fragment {
    /// Text and its weight.
    Text(String, f64),
    /// The end of a chunk.
    Break,
}

/// Parses a prompt into fragments; neighbors of equal weight are one.
///
/// `(a)` multiplies the weight of `a` by 1.1, `[a]` divides it by 1.1, `(a:1.2)` multiplies it by 1.2; brackets nest,
/// and one that is never closed counts to the end. `\` before a bracket or another `\` makes it text. The word `BREAK`
/// outside of brackets ends a chunk; within them it is text. AUTOMATIC1111 `prompt_parser.py`
/// `parse_prompt_attention`.
///
/// # Errors
/// [`Error::Invalid`] for a weight that is no number, such as `1.2.3`.
pub(crate) fn parse(prompt: &str) -> Result<Vec<Fragment>> {
    let mut parser = Parser::default();
    let mut rest = prompt;
    while let Some(first) = rest.chars().next() {
        let length = parser.take(first, rest)?;
        rest = &rest[length..];
    }
    parser.finish()
}

/// Returns true if [`PromptSyntax::Weights`](crate::PromptSyntax::Weights) reads a prompt in another way than as text.
pub fn has_syntax(prompt: &str) -> bool {
    prompt.contains('\\') || !matches!(parse(prompt).as_deref(), Ok([] | [Fragment::Text(_, 1.)]))
}

/// Returns true if a prompt has a weight in numbers, `(a:1.2)`, or a `BREAK`, which are hardly meant as text.
pub fn has_weights(prompt: &str) -> bool {
    let number = |(at, _): (usize, &str)| weight(&prompt[at..]).is_some() && prompt[..at].contains('(');
    prompt.match_indices(':').any(number)
        || parse(prompt).is_ok_and(|fragments| fragments.contains(&Fragment::Break))
}

/// A part with the weight so far; a break has the text `BREAK` and the weight -1, as in AUTOMATIC1111, where brackets
/// around it change that weight and make it text.
type Weighted = (String, f64);

#[derive(Default)]
struct Parser {
    parts: Vec<Weighted>,
    /// The numbers of parts before each open bracket.
    round: Vec<usize>,
    square: Vec<usize>,
}

impl Parser {
    /// Takes the first item of `rest`, which begins with `first`; returns its length in bytes.
    fn take(&mut self, first: char, rest: &str) -> Result<usize> {
        match first {
            '\\' => {
                let next = rest[1..].chars().next().filter(|next| "()[]\\".contains(*next));
                self.parts.push((next.map_or(String::new(), String::from), 1.));
                return Ok(1 + next.map_or(0, char::len_utf8));
            }
            '(' => self.round.push(self.parts.len()),
            '[' => self.square.push(self.parts.len()),
            ':' if let Some((number, length)) = weight(rest) => {
                match self.round.pop() {
                    Some(from) => self.multiply(from, parse_weight(number)?),
                    None => self.parts.push((rest[..length].to_owned(), 1.)),
                }
                return Ok(length);
            }
            ')' if let Some(from) = self.round.pop() => self.multiply(from, FACTOR),
            ']' if let Some(from) = self.square.pop() => self.multiply(from, 1. / FACTOR),
            ')' | ']' | ':' => self.parts.push((first.into(), 1.)),
            _ => {
                let length = rest.find(SYNTAX).unwrap_or(rest.len());
                self.push_text(&rest[..length]);
                return Ok(length);
            }
        }
        Ok(1)
    }

    fn multiply(&mut self, from: usize, factor: f64) {
        self.parts[from..].iter_mut().for_each(|(_, weight)| *weight *= factor);
    }

    /// Adds a text, split at breaks.
    fn push_text(&mut self, text: &str) {
        let mut start = 0;
        for (at, _) in text.match_indices(BREAK) {
            let end = at + BREAK.len();
            let letter = |c: char| c.is_alphanumeric() || c == '_';
            if text[..at].ends_with(letter) || text[end..].starts_with(letter) {
                continue;
            }
            self.parts.push((text[start..at].trim_end().to_owned(), 1.));
            self.parts.push((BREAK.into(), -1.));
            start = end + (text[end..].len() - text[end..].trim_start().len());
        }
        self.parts.push((text[start..].to_owned(), 1.));
    }

    fn finish(mut self) -> Result<Vec<Fragment>> {
        for from in std::mem::take(&mut self.round) {
            self.multiply(from, FACTOR);
        }
        for from in std::mem::take(&mut self.square) {
            self.multiply(from, 1. / FACTOR);
        }
        let mut merged: Vec<Weighted> = Vec::new();
        for (text, weight) in self.parts {
            if !weight.is_finite() {
                return Err(Error::expected(
                    format!("prompt: weight of `{text}`"),
                    "a finite number",
                    weight,
                ));
            }
            match merged.last_mut() {
                Some((before, same)) if *same == weight => before.push_str(&text),
                _ => merged.push((text, weight)),
            }
        }
        let fragment = |(text, weight): Weighted| {
            if weight == -1. && text == BREAK { Fragment::Break } else { Fragment::Text(text, weight) }
        };
        Ok(merged.into_iter().map(fragment).collect())
    }
}

/// The number in `:1.2)` at the start of `rest`, and the length of all.
fn weight(rest: &str) -> Option<(&str, usize)> {
    let from = rest.strip_prefix(':')?.trim_start();
    let number = from.find(|c: char| !(c.is_ascii_digit() || "+-.".contains(c)))?;
    let (number, end) = from.split_at(number);
    let unsigned = number.strip_prefix(['+', '-']).unwrap_or(number);
    if unsigned.is_empty() || unsigned.contains(['+', '-']) {
        return None;
    }
    let after = end.trim_start().strip_prefix(')')?;
    Some((number, rest.len() - after.len()))
}

fn parse_weight(number: &str) -> Result<f64> {
    number.parse().map_err(|_| Error::expected("prompt: weight", "a number such as 1.2", number))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn syntax_is_told_from_text() {
        for (prompt, expected) in [
            ("a cat", false),
            ("", false),
            ("one: two", false),
            ("a (cat)", true),
            ("[cat]", true),
            ("(a:0.5)", true),
            ("a BREAK b", true),
            ("BREAKFAST", false),
            (r"a \(cat\)", true),
        ] {
            assert_eq!(has_syntax(prompt), expected, "{prompt}");
            assert_eq!(has_weights(prompt), prompt.contains("0.5") || prompt.contains(" BREAK"), "{prompt}");
        }
    }
}
