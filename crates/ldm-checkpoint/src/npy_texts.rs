//! Arrays of texts in NumPy's `.npy`, such as names.

use tch::Kind;

use crate::npy::{HeaderDict, decode_npy};

/// Reads an array of one axis, of texts (`<U`, `|S`) or integers, as texts; the error is a message without the name of the
/// file.
pub(crate) fn npy_texts(bytes: &[u8]) -> Result<Vec<String>, String> {
    let (HeaderDict { descr, shape, .. }, start) = HeaderDict::read(bytes)?;
    let [count] = shape[..] else { return Err(format!("expected an array of one axis, got {shape:?}")) };
    let (unit, characters) = match (descr.strip_prefix("<U"), descr.strip_prefix("|S")) {
        (Some(characters), _) => (size_of::<u32>(), characters),
        (None, Some(characters)) => (1, characters),
        _ => return integers(bytes),
    };
    let width = characters.parse::<usize>().ok().and_then(|characters| characters.checked_mul(unit));
    let width = width.filter(|width| *width > 0);
    let width = width.ok_or_else(|| format!("expected texts, got `{}`", descr.escape_debug()))?;
    let length = usize::try_from(count).ok().and_then(|count| count.checked_mul(width));
    let elements = &bytes[start..];
    if length != Some(elements.len()) {
        return Err(format!("expected {count} texts of {width} bytes each, got {} bytes", elements.len()));
    }
    let text = |element: &[u8]| -> String {
        if unit == 1 {
            return String::from_utf8_lossy(element).into_owned();
        }
        let codes =
            element.chunks_exact(unit).map(|code| u32::from_le_bytes(code.try_into().expect("four bytes")));
        codes.map(|code| char::from_u32(code).unwrap_or(char::REPLACEMENT_CHARACTER)).collect()
    };
    Ok(elements.chunks_exact(width).map(|element| text(element).trim_end_matches('\0').to_owned()).collect())
}

fn integers(bytes: &[u8]) -> Result<Vec<String>, String> {
    let array = decode_npy(bytes)?;
    if array.is_floating_point() || array.kind() == Kind::Bool || array.kind() == Kind::ComplexFloat {
        return Err(format!("expected texts or integers, got {:?}", array.kind()));
    }
    let values = Vec::<i64>::try_from(array.to_kind(Kind::Int64)).map_err(|error| error.to_string())?;
    Ok(values.iter().map(ToString::to_string).collect())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::NPY_MAGIC;

    fn npy(descr: &str, shape: &str, elements: &[u8]) -> Vec<u8> {
        let header = format!("{{'descr': '{descr}', 'fortran_order': False, 'shape': ({shape}), }}\n");
        [NPY_MAGIC, &[1, 0], &(header.len() as u16).to_le_bytes(), header.as_bytes(), elements].concat()
    }

    #[test]
    fn texts_and_integers_are_names() {
        let utf32: Vec<u8> = "aé\0bcd".chars().flat_map(|c| (c as u32).to_le_bytes()).collect();
        assert_eq!(npy_texts(&npy("<U3", "2,", &utf32)).unwrap(), ["aé", "bcd"]);
        assert_eq!(npy_texts(&npy("|S2", "3,", b"abc\0\0\0")).unwrap(), ["ab", "c", ""]);
        assert_eq!(npy_texts(&npy("<i2", "2,", &[7, 0, 255, 255])).unwrap(), ["7", "-1"]);
    }

    #[test]
    fn other_arrays_are_refused() {
        for (file, expected) in [
            (npy("<U3", "2, 1", &[0; 24]), "expected an array of one axis, got [2, 1]"),
            (npy("<U3", "2,", &[0; 23]), "expected 2 texts of 12 bytes each, got 23 bytes"),
            (npy("<U4611686018427387904", "2,", &[]), "expected texts, got `<U4611686018427387904`"),
            (npy("|S1", "9223372036854775807,", &[0]), "expected 9223372036854775807 texts"),
            (npy("|S0", "2,", &[]), "expected texts, got `|S0`"),
            (npy("|O", "1,", &[0]), "expected an array of numbers, got Python objects (`|O`)"),
            (npy("<f4", "1,", &[0; 4]), "expected texts or integers, got Float"),
        ] {
            let message = npy_texts(&file).unwrap_err();
            assert!(message.starts_with(expected), "{message}");
        }
    }
}
