//! Rust sources as text: what is code in them, and what of it the rules look for.

/// `text` with comments and what is quoted blanked out, so that a line keeps its number.
pub(crate) fn code(text: &str) -> String {
    let chars: Vec<char> = text.chars().collect();
    let at = |i: usize| chars.get(i).copied().unwrap_or('\0');
    let mut out = String::with_capacity(text.len());
    let mut i = 0;
    while i < chars.len() {
        let end = match (at(i), at(i + 1)) {
            ('/', '/') => (i..chars.len()).find(|&k| at(k) == '\n').unwrap_or(chars.len()),
            ('/', '*') => (i + 2..chars.len())
                .find(|&k| at(k) == '*' && at(k + 1) == '/')
                .map_or(chars.len(), |k| k + 2),
            ('r', '"' | '#') if !is_word(at(i.wrapping_sub(1))) => raw_string_end(&chars, i).unwrap_or(i),
            ('"', _) => {
                let mut k = i + 1;
                while k < chars.len() && at(k) != '"' {
                    k += if at(k) == '\\' { 2 } else { 1 };
                }
                k + 1
            }
            ('\'', '\\') => (i + 3..chars.len()).find(|&k| at(k) == '\'').map_or(chars.len(), |k| k + 1),
            ('\'', _) if at(i + 2) == '\'' => i + 3,
            _ => i,
        };
        let end = end.min(chars.len());
        if end == i {
            out.push(chars[i]);
            i += 1;
        } else {
            out.extend(chars[i..end].iter().map(|&c| if c == '\n' { '\n' } else { ' ' }));
            i = end;
        }
    }
    out
}

fn raw_string_end(chars: &[char], start: usize) -> Option<usize> {
    let hashes = chars[start + 1..].iter().take_while(|&&c| c == '#').count();
    let open = start + 1 + hashes;
    if chars.get(open) != Some(&'"') {
        return None; // r#name
    }
    let closes =
        |k: usize| chars[k] == '"' && chars[k + 1..].iter().take_while(|&&c| c == '#').count() >= hashes;
    (open + 1..chars.len()).find(|&k| closes(k)).map(|k| k + 1 + hashes)
}

/// The part before a file's tests, which stand at its end.
pub(crate) fn without_tests(code: &str) -> &str {
    code.find("#[cfg(test)]").map_or(code, |at| &code[..at])
}

fn is_word(c: char) -> bool {
    c.is_alphanumeric() || c == '_'
}

/// Byte offsets of `word` in `text` with no letter next to it.
fn word_at<'a>(text: &'a str, word: &'a str) -> impl Iterator<Item = usize> + 'a {
    text.match_indices(word).map(|(at, _)| at).filter(move |&at| {
        let before = text[..at].chars().next_back();
        let after = text[at + word.len()..].chars().next();
        !(before.is_some_and(is_word) || word.ends_with(is_word) && after.is_some_and(is_word))
    })
}

/// `file:line: word` for each of `words` in `code`.
pub(crate) fn found(name: &str, code: &str, words: &[&str]) -> Vec<String> {
    let mut hits: Vec<(usize, &str)> =
        words.iter().flat_map(|&word| word_at(code, word).map(move |at| (line(code, at), word))).collect();
    hits.sort_unstable();
    hits.into_iter().map(|(line, word)| format!("{name}:{line}: {word}")).collect()
}

fn line(text: &str, at: usize) -> usize {
    text[..at].matches('\n').count() + 1
}

/// An attribute: where it begins, and the end of it.
fn attributes(code: &str) -> Vec<(usize, usize)> {
    code.match_indices("#[").map(|(at, _)| (at, closing(code, at + 1))).collect()
}

/// Behind the bracket that closes the one at `open`.
fn closing(code: &str, open: usize) -> usize {
    let mut depth = 0;
    for (at, c) in code[open..].char_indices() {
        depth += i32::from("([{".contains(c)) - i32::from(")]}".contains(c));
        if depth == 0 {
            return open + at + 1;
        }
    }
    code.len()
}

/// `flatten` and `untagged` in attributes of serde.
pub(crate) fn loose_attributes(name: &str, code: &str) -> Vec<String> {
    let serde = |(from, to): &(usize, usize)| code[*from..*to].contains("serde(");
    let look = |(from, to): (usize, usize)| {
        let words = ["flatten", "untagged"]
            .into_iter()
            .filter(move |word| word_at(&code[from..to], word).next().is_some());
        words.map(move |word| format!("{name}:{}: serde({word})", line(code, from)))
    };
    attributes(code).into_iter().filter(serde).flat_map(look).collect()
}

/// Structs and enums that derive `Deserialize` and take fields they do not know: their names, with file and line.
pub(crate) fn lenient(name: &str, code: &str) -> Vec<(String, String)> {
    let mut violations = Vec::new();
    for (from, to) in attributes(code) {
        let derives = code[from..to].starts_with("#[derive(")
            && word_at(&code[from..to], "Deserialize").next().is_some();
        if !derives {
            continue;
        }
        // The attributes of one item stand in a row; then come its head and its body.
        let (mut end, mut strict) = (to, false);
        while code[end..].trim_start().starts_with("#[") {
            let open = end + code[end..].find('[').expect("just seen");
            let next = closing(code, open);
            strict |= word_at(&code[open..next], "deny_unknown_fields").next().is_some();
            end = next;
        }
        // Past `pub(crate)`, whose bracket opens no body.
        let keyword = ["struct", "enum"]
            .iter()
            .filter_map(|word| word_at(&code[end..], word).next())
            .min()
            .unwrap_or(0);
        let head_at = end + keyword;
        let body = head_at + code[head_at..].find(['{', ';', '(']).unwrap_or(0);
        let head = &code[head_at..body];
        let is_enum = head.starts_with("enum");
        let item = head.split_whitespace().nth(1).unwrap_or("?");
        let item = item.split('<').next().unwrap_or(item);
        if !(strict || is_enum && has_unit_variants_alone(&code[body + 1..closing(code, body) - 1])) {
            violations.push((item.to_owned(), format!("{name}:{}: {item}", line(code, from))));
        }
    }
    violations
}

/// Checks that an enum's body has unit variants alone, attributes aside.
fn has_unit_variants_alone(body: &str) -> bool {
    let mut rest = body.to_owned();
    while let Some(at) = rest.find("#[") {
        let end = closing(&rest, at + 1);
        rest.replace_range(at..end, "");
    }
    !rest.contains(['{', '('])
}

#[test]
fn the_checks_see_code_and_nothing_else() {
    let text = "// unsafe\nlet a = \"unsafe \\\" unsafe\"; /* unsafe */ let b = r#\"unsafe\"#;\nunsafe_code;\n'\"'; unsafe {}";
    assert_eq!(found("a.rs", &code(text), &["unsafe"]), ["a.rs:4: unsafe"]);
    assert_eq!(code(text).lines().count(), 4);
    let text = "fn f<'a>(x: &'a str) { x.randn_like(); y.operand(z); println!() }\n#[cfg(test)]\nmod tests { rand() }";
    assert_eq!(
        found("a.rs", without_tests(&code(text)), &["randn_like", "rand", "randn"]),
        ["a.rs:1: randn_like"]
    );
    assert_eq!(found("a.rs", text, &["print!", "println!", "rand"]), ["a.rs:1: println!", "a.rs:3: rand"]);
    assert_eq!(
        found("a.rs", "self.vs_mut().load(p); code.load(o)", &["vs.load(", "vs_mut().load("]).len(),
        1
    );
}

#[test]
fn the_checks_see_lenient_configs() {
    let text = "#[derive(Debug, Deserialize)]\n#[serde(default)]\npub struct A { x: i64 }
#[derive(Deserialize)] #[serde(tag = \"t\", deny_unknown_fields)] enum B { C(D) }
#[derive(Deserialize)] enum E { #[serde(rename = \"f\")] F, G }
#[derive(Deserialize)]\npub(crate) enum H { I(J), K }
#[derive(Serialize)] struct L { #[serde(flatten)] m: N }";
    let code = code(text);
    let lines: Vec<String> = lenient("a.rs", &code).into_iter().map(|(_, line)| line).collect();
    assert_eq!(lines, ["a.rs:1: A", "a.rs:6: H"]);
    assert_eq!(loose_attributes("a.rs", &code), ["a.rs:8: serde(flatten)"]);
    assert!(loose_attributes("a.rs", "#[command(flatten)]").is_empty());
}
