//! Merge keys within a tree, and merging of trees.

use serde_yaml::value::TaggedValue;
use serde_yaml::{Mapping, Value};

/// Replaces each `<<` by the fields of the mappings it names; fields beside it and of earlier mappings take precedence.
///
/// YAML 1.1, "Merge Key Language-Independent Type". The values of a `<<` are resolved first, so that a merged mapping may
/// have a `<<` itself.
///
/// # Errors
/// A sentence, when a `<<` is neither a mapping nor a list of mappings, when the tree has a tag (`!name`), or when a key is
/// neither text nor a number nor a Boolean.
pub(super) fn resolve_keys(tree: &mut Value) -> Result<(), String> {
    match tree {
        Value::Sequence(items) => items.iter_mut().try_for_each(resolve_keys),
        Value::Mapping(fields) => {
            fields.keys().try_for_each(check_key)?;
            fields.values_mut().try_for_each(resolve_keys)?;
            match fields.remove("<<") {
                None => {}
                Some(Value::Mapping(merged)) => add(fields, merged),
                Some(Value::Sequence(all)) => {
                    for each in all {
                        let Value::Mapping(merged) = each else { return Err(wrong(&each)) };
                        add(fields, merged);
                    }
                }
                Some(other) => return Err(wrong(&other)),
            }
            Ok(())
        }
        Value::Tagged(tagged) => Err(tag(tagged)),
        _ => Ok(()),
    }
}

/// The error of a tag. OmegaConf knows none either, and some cannot be written again.
fn tag(tagged: &TaggedValue) -> String {
    format!("expected YAML without tags, got `{}`", tagged.tag)
}

/// OmegaConf's keys. YAML also has lists and mappings as keys, which cannot always be written again.
fn check_key(key: &Value) -> Result<(), String> {
    let got = match key {
        Value::String(_) | Value::Number(_) | Value::Bool(_) => return Ok(()),
        Value::Tagged(tagged) => return Err(tag(tagged)),
        Value::Null => "null",
        Value::Sequence(_) => "a list",
        Value::Mapping(_) => "a mapping",
    };
    Err(format!("expected a key of text, got {got}"))
}

fn add(fields: &mut Mapping, merged: Mapping) {
    for (key, value) in merged {
        fields.entry(key).or_insert(value);
    }
}

fn wrong(value: &Value) -> String {
    let got = serde_yaml::to_string(value).unwrap_or_default();
    format!("merge key `<<`: expected a mapping or a list of mappings, got {}", got.trim())
}

/// Merges `more` into `tree`: mappings field by field, everything else is replaced, as by `OmegaConf.merge`.
pub(super) fn into(tree: &mut Value, more: Value) {
    match (tree, more) {
        (Value::Mapping(fields), Value::Mapping(more)) => {
            for (key, value) in more {
                into(fields.entry(key).or_insert(Value::Null), value);
            }
        }
        (tree, more) => *tree = more,
    }
}
