//! One-dimensional integer arrays in NumPy's format.

use std::path::Path;

use ldm_core::{Error, Result};

/// Reads a one-dimensional integer array of a `.npy` file.
///
/// Format: magic `\x93NUMPY`, version, length of the header, a Python dict in ASCII, raw values
/// (<https://numpy.org/doc/stable/reference/generated/numpy.lib.format.html>).
pub(crate) fn read_integers(path: &Path) -> Result<Vec<i64>> {
    let bytes = std::fs::read(path).map_err(Error::io(path))?;
    parse(&bytes).map_err(|message| Error::format(path, message))
}

fn parse(bytes: &[u8]) -> std::result::Result<Vec<i64>, String> {
    let rest = bytes.strip_prefix(b"\x93NUMPY").ok_or("not a .npy file")?;
    let (length, rest) = match rest {
        [1, _, low, high, rest @ ..] => (u16::from_le_bytes([*low, *high]) as usize, rest),
        [2 | 3, _, a, b, c, d, rest @ ..] => (u32::from_le_bytes([*a, *b, *c, *d]) as usize, rest),
        _ => return Err("a .npy file of an unknown version".into()),
    };
    let (header, data) = rest.split_at_checked(length).ok_or("the .npy header is cut off")?;
    let header = String::from_utf8_lossy(header);
    let descr = field(&header, "descr")?.trim_matches(['\'', '"']);
    let shape = field(&header, "shape")?;
    let count = shape
        .strip_prefix('(')
        .and_then(|shape| shape.strip_suffix(",)"))
        .and_then(|count| count.trim().parse::<usize>().ok())
        .ok_or_else(|| format!("expected an array of one dimension, got shape: {shape}"))?;
    let (order, dtype) = descr.split_at_checked(1).ok_or("the .npy header has an empty dtype")?;
    let width = match (order, dtype) {
        ("|" | "<" | ">", "i1" | "u1") => 1,
        ("<" | ">", "i2" | "u2") => 2,
        ("<" | ">", "i4" | "u4") => 4,
        ("<" | ">", "i8" | "u8") => 8,
        _ => return Err(format!("expected an array of integers, got dtype: {descr}")),
    };
    if count.checked_mul(width) != Some(data.len()) {
        return Err(format!("expected {count} values of {width} bytes, got {} bytes", data.len()));
    }
    data.chunks_exact(width).map(|raw| integer(raw, order == ">", dtype.starts_with('i'))).collect()
}

fn integer(raw: &[u8], big_endian: bool, signed: bool) -> std::result::Result<i64, String> {
    let mut little = raw.to_vec();
    if big_endian {
        little.reverse();
    }
    let negative = signed && little.last().is_some_and(|byte| *byte >= 0x80);
    let mut wide = [if negative { 0xff } else { 0 }; 16];
    wide[..little.len()].copy_from_slice(&little);
    let value = i128::from_le_bytes(wide);
    i64::try_from(value).map_err(|_| format!("an index too large: {value}"))
}

/// The text of one value of the header's dict, `{'descr': '<i8', 'fortran_order': False, 'shape': (3,), }`.
fn field<'a>(header: &'a str, name: &str) -> std::result::Result<&'a str, String> {
    let missing = || format!("the .npy header has no `{name}`");
    let (_, after) = header.split_once(&format!("'{name}':")).ok_or_else(missing)?;
    let after = after.trim_start();
    let end =
        if after.starts_with('(') { after.find(')').map(|end| end + 1) } else { after.find([',', '}']) };
    Ok(after[..end.ok_or_else(missing)?].trim())
}

#[cfg(test)]
mod tests {
    use super::parse;

    fn file(descr: &str, shape: &str, data: &[u8]) -> Vec<u8> {
        let header = format!("{{'descr': '{descr}', 'fortran_order': False, 'shape': {shape}, }}\n");
        let mut bytes = b"\x93NUMPY\x01\x00".to_vec();
        bytes.extend((header.len() as u16).to_le_bytes());
        bytes.extend(header.as_bytes());
        bytes.extend(data);
        bytes
    }

    #[test]
    fn integers_of_every_kind_are_read() {
        for (descr, data, want) in [
            ("|u1", vec![0, 200], vec![0, 200]),
            ("|i1", vec![0, 255], vec![0, -1]),
            ("<i2", vec![1, 2, 254, 255], vec![513, -2]),
            (">u2", vec![1, 2, 255, 255], vec![258, 65535]),
            ("<i4", vec![7, 0, 0, 0, 0, 1, 0, 0], vec![7, 256]),
            ("<i8", [3_i64.to_le_bytes(), (-4_i64).to_le_bytes()].concat(), vec![3, -4]),
        ] {
            assert_eq!(parse(&file(descr, "(2,)", &data)).unwrap(), want, "{descr}");
        }
        assert!(parse(&file("<i8", "(0,)", &[])).unwrap().is_empty());
    }

    #[test]
    fn other_files_are_refused() {
        for (bytes, want) in [
            (b"PK\x03\x04".to_vec(), "not a .npy file"),
            (file("<f4", "(1,)", &[0; 4]), "expected an array of integers, got dtype: <f4"),
            (file("<i4", "(1, 1)", &[0; 4]), "expected an array of one dimension, got shape: (1, 1)"),
            (file("<i4", "(2,)", &[0; 4]), "expected 2 values of 4 bytes, got 4 bytes"),
            (file("<i4", "(2,)", &[0; 4])[..20].to_vec(), "the .npy header is cut off"),
            (file("<u8", "(1,)", &[255; 8]), "an index too large: 18446744073709551615"),
        ] {
            assert_eq!(parse(&bytes).unwrap_err(), want);
        }
    }
}
