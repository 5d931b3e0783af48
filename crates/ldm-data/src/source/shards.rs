//! Shards: several archives in one pattern, `photos-{000..003}.tar`.

use ldm_core::{Error, Result};

/// Limit of the shards of a pattern.
const MOST: usize = 1 << 20;

/// Expands every `{from..to}` of a pattern, with leading zeros; a name without one is unchanged.
///
/// # Errors
/// [`Error::Invalid`] when the braces do not contain two numbers in ascending order, or too many of them.
pub(crate) fn expand(pattern: &str) -> Result<Vec<String>> {
    let Some((before, rest)) = pattern.split_once('{') else {
        return Ok(vec![pattern.to_owned()]);
    };
    let wrong = || {
        Error::invalid(format!(
            "path: expected {{from..to}} with two numbers, e.g. {{000..127}}, got {pattern}"
        ))
    };
    let (range, after) = rest.split_once('}').ok_or_else(wrong)?;
    let (low, high) = range.split_once("..").ok_or_else(wrong)?;
    let number = |text: &str| text.parse::<u32>().map_err(|_| wrong());
    let (from, to, width) = (number(low)?, number(high)?, low.len());
    if from > to {
        return Err(wrong());
    }
    let tails = expand(after)?;
    if (to - from) as usize >= MOST / tails.len() {
        return Err(Error::invalid(format!("path: expected at most {MOST} shards, got more in {pattern}")));
    }
    Ok((from..=to).flat_map(|n| tails.iter().map(move |tail| format!("{before}{n:0width$}{tail}"))).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_are_expanded() {
        assert_eq!(expand("a.tar").unwrap(), ["a.tar"]);
        assert_eq!(expand("a-{08..10}.tar").unwrap(), ["a-08.tar", "a-09.tar", "a-10.tar"]);
        assert_eq!(expand("{1..2}/{0..1}").unwrap(), ["1/0", "1/1", "2/0", "2/1"]);
    }

    #[test]
    fn too_many_shards_are_refused() {
        for pattern in ["a-{0..4294967295}.tar", "{0..99999}/{0..99999}"] {
            let message = expand(pattern).unwrap_err().to_string();
            assert!(message.starts_with("path: expected at most 1048576 shards"), "{message}");
        }
    }

    #[test]
    fn other_braces_are_refused() {
        for pattern in ["a-{1..2.tar", "a-{1,2}.tar", "a-{2..1}.tar", "a-{x..y}.tar"] {
            let message = expand(pattern).unwrap_err().to_string();
            assert!(
                message.starts_with("path: expected {from..to}") && message.ends_with(pattern),
                "{message}"
            );
        }
    }
}
