//! References from one value to another, `${a.b}`, as OmegaConf's interpolation.

use serde_yaml::Value;

/// The most references of a config, those in referenced values included: they could double at each.
const MAX_REFERENCES: usize = 10_000;
/// The longest text made of references, in bytes.
const MAX_TEXT: usize = 1 << 16;

/// Replaces references by their values. A text that is one reference becomes a copy of the value; in a longer text,
/// scalars are inserted. A path starts at the root, or with a dot at the parent of the referring value, with two at the
/// grandparent, and so on; `\${` is not a reference.
///
/// # Errors
/// A sentence with the referring key: when the path leads nowhere or back to itself, and for resolvers (`${oc.env:HOME}`),
/// whose results are not part of the config.
pub(super) fn resolve(tree: &mut Value) -> Result<(), String> {
    let root = tree.clone();
    let mut resolver = Resolver { root: &root, references: 0 };
    *tree = resolver.resolved(&root, &mut Vec::new(), &mut Vec::new())?;
    Ok(())
}

struct Resolver<'a> {
    root: &'a Value,
    references: usize,
}

impl Resolver<'_> {
    /// A value without references; `at` is its path, `open` the paths of the references that are being resolved.
    fn resolved(
        &mut self,
        value: &Value,
        at: &mut Vec<String>,
        open: &mut Vec<Vec<String>>,
    ) -> Result<Value, String> {
        match value {
            Value::String(text) if text.contains("${") => self.text(text, at, open),
            Value::Sequence(items) => {
                let mut resolved = Vec::with_capacity(items.len());
                for (index, item) in items.iter().enumerate() {
                    at.push(index.to_string());
                    resolved.push(self.resolved(item, at, open)?);
                    at.pop();
                }
                Ok(Value::Sequence(resolved))
            }
            Value::Mapping(fields) => {
                let mut resolved = serde_yaml::Mapping::with_capacity(fields.len());
                for (key, field) in fields {
                    at.push(key.as_str().unwrap_or_default().to_owned());
                    resolved.insert(key.clone(), self.resolved(field, at, open)?);
                    at.pop();
                }
                Ok(Value::Mapping(resolved))
            }
            other => Ok(other.clone()),
        }
    }

    fn text(&mut self, text: &str, at: &[String], open: &mut Vec<Vec<String>>) -> Result<Value, String> {
        let mut result = String::new();
        let mut rest = text;
        while let Some((before, after)) = rest.split_once("${") {
            if let Some(before) = before.strip_suffix('\\') {
                result.extend([before, "${"]);
                rest = after;
                continue;
            }
            let Some((reference, after)) = after.split_once('}') else {
                return Err(wrong(at, &format!("${{{after}"), "a closing brace", "none"));
            };
            let value = self.target(reference, at, open)?;
            if before.is_empty() && after.is_empty() && result.is_empty() && rest.len() == text.len() {
                return Ok(value);
            }
            result += before;
            match value {
                Value::String(value) => result += &value,
                Value::Number(value) => result += &value.to_string(),
                Value::Bool(value) => result += &value.to_string(),
                _ => return Err(wrong(at, &shown(reference), "a scalar within a text", "another value")),
            }
            if result.len() > MAX_TEXT {
                return Err(wrong(
                    at,
                    &shown(reference),
                    &format!("at most {MAX_TEXT} bytes of text"),
                    "more",
                ));
            }
            rest = after;
        }
        Ok(Value::String(result + rest))
    }

    /// The value that a reference names, itself without references.
    fn target(
        &mut self,
        reference: &str,
        at: &[String],
        open: &mut Vec<Vec<String>>,
    ) -> Result<Value, String> {
        self.references += 1;
        if self.references > MAX_REFERENCES {
            return Err(wrong(
                at,
                &shown(reference),
                &format!("at most {MAX_REFERENCES} references"),
                "more",
            ));
        }
        if reference.contains([':', '$', '{']) {
            return Err(wrong(
                at,
                &shown(reference),
                "the path of a key",
                "a resolver or a nested reference",
            ));
        }
        let path = absolute(reference.trim(), at)
            .ok_or_else(|| wrong(at, &shown(reference), "a key of this config", "none"))?;
        if open.contains(&path) || at.starts_with(&path) {
            return Err(wrong(at, &shown(reference), "another value", "a reference to itself"));
        }
        let mut value = self.root;
        for key in &path {
            value = match value {
                Value::Sequence(items) => key.parse().ok().and_then(|index: usize| items.get(index)),
                Value::Mapping(fields) => fields.get(key.as_str()),
                _ => None,
            }
            .ok_or_else(|| wrong(at, &shown(reference), "a key of this config", "none"))?;
        }
        open.push(path.clone());
        let resolved = self.resolved(value, &mut path.clone(), open);
        open.pop();
        resolved
    }
}

/// The path of a reference from the root; none if it has more dots than there are parents.
fn absolute(reference: &str, at: &[String]) -> Option<Vec<String>> {
    let name = reference.trim_start_matches('.');
    let up = reference.len() - name.len();
    let mut path = if up == 0 { Vec::new() } else { at.get(..at.len().checked_sub(up)?)?.to_vec() };
    path.extend(name.replace('[', ".").replace(']', "").split('.').map(ToOwned::to_owned));
    path.iter().all(|key| !key.is_empty()).then_some(path)
}

fn shown(reference: &str) -> String {
    format!("${{{reference}}}")
}

fn wrong(at: &[String], reference: &str, expected: &str, got: &str) -> String {
    format!("{}: {reference}: expected {expected}, got {got}", at.join("."))
}
