//! Whether a file's tensors are those of an architecture.

use ldm_checkpoint::Shapes;
use ldm_core::{Error, Mismatch};
use serde_json::{Map, Value, json};

/// Names of one kind that are printed.
const SHOWN: usize = 10;

/// What does not fit.
pub(super) enum Misfit {
    /// Names and shapes.
    Names(Mismatch),
    /// The architecture itself cannot be.
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

/// Compares names and shapes both ways.
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

/// Prints the verdict, the first of each list.
pub(super) fn print(fits: &Result<(), Misfit>) {
    match fits {
        Ok(()) => println!("fits          every name and shape, both ways"),
        Err(Misfit::Config(why)) => println!("fits not      {why}"),
        Err(Misfit::Names(Mismatch { missing, unexpected, misshaped })) => {
            let shapes = |(name, model, file): &(String, Vec<i64>, Vec<i64>)| {
                format!("{name}: {file:?} where the model has {model:?}")
            };
            let misshaped: Vec<String> = misshaped.iter().map(shapes).collect();
            let lists = [("missing", missing), ("fit nothing", unexpected), ("of another shape", &misshaped)];
            let mut head = "fits not    ";
            for (what, names) in lists.into_iter().filter(|(_, names)| !names.is_empty()) {
                println!("{head}  {} {what}", names.len());
                head = "            ";
                names.iter().take(SHOWN).for_each(|name| println!("  {name}"));
                if names.len() > SHOWN {
                    println!("  … and {} more", names.len() - SHOWN);
                }
            }
        }
    }
}

/// `fits`, and what does not, whole.
pub(super) fn as_json(fits: Option<&Result<(), Misfit>>) -> Map<String, Value> {
    let misfit = match fits {
        Some(Err(Misfit::Config(why))) => json!({"config": why}),
        Some(Err(Misfit::Names(Mismatch { missing, unexpected, misshaped }))) => {
            json!({"missing": missing, "unexpected": unexpected, "misshaped": misshaped})
        }
        _ => Value::Null,
    };
    Map::from_iter([("fits".into(), json!(fits.map(Result::is_ok))), ("misfit".into(), misfit)])
}
