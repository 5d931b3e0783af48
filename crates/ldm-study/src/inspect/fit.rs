//! Comparison of a file's tensors with those of an architecture.

use std::fmt;

use ldm_checkpoint::Shapes;
use ldm_core::{Error, Mismatch};
use serde_json::{Map, Value, json};

/// Names per list in the text.
const SHOWN: usize = 10;

/// A misfit.
#[derive(Debug)]
pub(super) enum Misfit {
    /// Names and shapes.
    Names(Mismatch),
    /// The config is not valid.
    Config(String),
}

impl From<Error> for Misfit {
    fn from(error: Error) -> Self {
        match error {
            Error::Weights { mismatch, .. } => Self::Names(mismatch),
            other => Self::Config(other.to_string()),
        }
    }
}

/// Compares names and shapes, in both directions.
pub(super) fn compare(expected: &Shapes, found: &Shapes) -> Result<(), Misfit> {
    let mut mismatch = Mismatch::default();
    for (name, shape) in expected {
        match found.get(name) {
            None => mismatch.missing.push(name.clone()),
            Some(other) if other != shape => {
                mismatch.misshaped.push((name.clone(), shape.clone(), other.clone()));
            }
            Some(_) => {}
        }
    }
    mismatch.unexpected = found.keys().filter(|name| !expected.contains_key(*name)).cloned().collect();
    if mismatch.is_empty() { Ok(()) } else { Err(Misfit::Names(mismatch)) }
}

/// Writes the verdict, with the first names of each list.
pub(super) fn write(f: &mut fmt::Formatter<'_>, fits: &Result<(), Misfit>) -> fmt::Result {
    let Mismatch { missing, unexpected, misshaped } = match fits {
        Ok(()) => return writeln!(f, "fits          all names and shapes"),
        Err(Misfit::Config(why)) => return writeln!(f, "mismatch      {why}"),
        Err(Misfit::Names(mismatch)) => mismatch,
    };
    let shapes = |(name, model, file): &(String, Vec<i64>, Vec<i64>)| {
        format!("{name}: {file:?} where the model has {model:?}")
    };
    let misshaped: Vec<String> = misshaped.iter().map(shapes).collect();
    let lists = [("missing", missing), ("unexpected", unexpected), ("of another shape", &misshaped)];
    let mut head = "mismatch    ";
    for (what, names) in lists.into_iter().filter(|(_, names)| !names.is_empty()) {
        writeln!(f, "{head}  {} {what}", names.len())?;
        head = "            ";
        names.iter().take(SHOWN).try_for_each(|name| writeln!(f, "  {name}"))?;
        if names.len() > SHOWN {
            writeln!(f, "  … and {} more", names.len() - SHOWN)?;
        }
    }
    Ok(())
}

/// Returns `fits` and the complete mismatch.
pub(super) fn document(fits: Option<&Result<(), Misfit>>) -> Map<String, Value> {
    let misfit = match fits {
        Some(Err(Misfit::Config(why))) => json!({"config": why}),
        Some(Err(Misfit::Names(Mismatch { missing, unexpected, misshaped }))) => {
            json!({"missing": missing, "unexpected": unexpected, "misshaped": misshaped})
        }
        _ => Value::Null,
    };
    Map::from_iter([("fits".into(), json!(fits.map(Result::is_ok))), ("misfit".into(), misfit)])
}
