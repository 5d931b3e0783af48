//! Text files of users: UTF-8, or UTF-16 with a byte order mark; lines end in LF or CRLF.

use std::path::Path;

use serde::de::DeserializeOwned;

use crate::{Error, Result};

/// Reads a text file as [`decode`] does.
///
/// # Errors
/// [`Error::Io`] when the file cannot be read, [`Error::Format`] when it is in another encoding.
pub fn read(path: impl AsRef<Path>) -> Result<String> {
    let path = path.as_ref();
    let bytes = std::fs::read(path).map_err(Error::io(path))?;
    decode(&bytes).map_err(|message| Error::format(path, message))
}

/// Reads a JSON file.
///
/// # Errors
/// As [`read`], and [`Error::Format`] when it is not the JSON of a `T`.
pub fn read_json<T: DeserializeOwned>(path: impl AsRef<Path>) -> Result<T> {
    let path = path.as_ref();
    let bytes = std::fs::read(path).map_err(Error::io(path))?;
    decode_json(&bytes).map_err(|message| Error::format(path, message))
}

/// Decodes a text file: drops a byte order mark, and turns CR LF and CR into LF, as Python's `open`.
///
/// Without a byte order mark the encoding is UTF-8, which almost no text in another encoding is by chance. A zero byte,
/// which UTF-8 allows, marks UTF-16 without a byte order mark or a file that is no text.
///
/// # Errors
/// A message without the name of the file, which names the first byte of another encoding by line and byte, from 1.
pub fn decode(bytes: &[u8]) -> std::result::Result<String, String> {
    let text = match bytes {
        [0xff, 0xfe, 0, 0, ..] | [0, 0, 0xfe, 0xff, ..] => {
            return Err(format!("expected UTF-8 text, got UTF-32; {REMEDY}"));
        }
        [0xff, 0xfe, rest @ ..] => utf16(rest, u16::from_le_bytes)?,
        [0xfe, 0xff, rest @ ..] => utf16(rest, u16::from_be_bytes)?,
        [0xef, 0xbb, 0xbf, rest @ ..] => utf8(rest, 3)?,
        _ => utf8(bytes, 0)?,
    };
    Ok(if text.contains('\r') { text.replace("\r\n", "\n").replace('\r', "\n") } else { text })
}

/// Decodes a JSON file.
///
/// # Errors
/// As [`decode`], and a message of the JSON's own mistake.
pub fn decode_json<T: DeserializeOwned>(bytes: &[u8]) -> std::result::Result<T, String> {
    serde_json::from_str(&decode(bytes)?).map_err(|error| format!("expected JSON, got {error}"))
}

const REMEDY: &str = "try saving it as UTF-8";

/// Decodes UTF-8 after `mark` bytes of a byte order mark, which count in the first line.
fn utf8(bytes: &[u8], mark: usize) -> std::result::Result<String, String> {
    let valid = match std::str::from_utf8(bytes) {
        Ok(_) => bytes.len(),
        Err(error) => error.valid_up_to(),
    };
    let wrong = bytes[..valid].iter().position(|&byte| byte == 0).unwrap_or(valid);
    let Some(byte) = bytes.get(wrong) else {
        return Ok(String::from_utf8_lossy(bytes).into_owned());
    };
    let before = &bytes[..wrong];
    let line = before.split(|&byte| byte == b'\n').count();
    let start = before.iter().rposition(|&byte| byte == b'\n').map_or(0, |end| end + 1);
    let column = wrong - start + 1 + if line == 1 { mark } else { 0 };
    Err(format!("expected UTF-8 text, got the byte 0x{byte:02x} at line {line}, byte {column}; {REMEDY}"))
}

fn utf16(bytes: &[u8], unit: fn([u8; 2]) -> u16) -> std::result::Result<String, String> {
    let (pairs, rest) = bytes.as_chunks::<2>();
    let mut text = String::with_capacity(pairs.len());
    for character in char::decode_utf16(pairs.iter().map(|&pair| unit(pair))) {
        let line = || text.matches('\n').count() + 1;
        match character {
            Ok('\0') => {
                return Err(format!("expected UTF-16 text, got a zero at line {}; {REMEDY}", line()));
            }
            Ok(character) => text.push(character),
            Err(_) => {
                return Err(format!("expected UTF-16 text, got half a pair at line {}; {REMEDY}", line()));
            }
        }
    }
    if rest.is_empty() {
        Ok(text)
    } else {
        Err(format!("expected UTF-16 text, got an odd number of bytes; {REMEDY}"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn utf16_of(text: &str, bytes: fn(u16) -> [u8; 2]) -> Vec<u8> {
        std::iter::once(0xfeff).chain(text.encode_utf16()).flat_map(bytes).collect()
    }

    #[test]
    fn a_zero_is_no_text_in_any_encoding() {
        assert!(decode(b"a\0b").unwrap_err().starts_with("expected UTF-8 text, got the byte 0x00 at line 1"));
        let error = decode(&utf16_of("a\n\0", u16::to_le_bytes)).unwrap_err();
        assert!(error.starts_with("expected UTF-16 text, got a zero at line 2"), "{error}");
    }

    #[test]
    fn all_newlines_are_pythons() {
        assert_eq!(decode(b"a\r\r\nb\rc\n\r").unwrap(), "a\n\nb\nc\n\n");
    }

    #[test]
    fn every_spelling_of_a_text_is_the_same_text() {
        let text = "a cat\nein Kätzchen 🐈\n";
        let windows = text.replace('\n', "\r\n");
        for spelling in [
            text.as_bytes().to_vec(),
            windows.clone().into_bytes(),
            format!("\u{feff}{windows}").into_bytes(),
            utf16_of(text, u16::to_le_bytes),
            utf16_of(&windows, u16::to_be_bytes),
        ] {
            assert_eq!(decode(&spelling).unwrap(), text);
        }
        assert_eq!(decode(b"").unwrap(), "");
        assert_eq!(decode(b"\xef\xbb\xbf").unwrap(), "");
    }

    #[test]
    fn another_encoding_is_named_by_its_first_byte() {
        for (bytes, expected) in [
            (&b"a\nb\xe9\n"[..], "expected UTF-8 text, got the byte 0xe9 at line 2, byte 2"),
            (b"\xef\xbb\xbf\xe9", "expected UTF-8 text, got the byte 0xe9 at line 1, byte 4"),
            (b"a\0c\0", "expected UTF-8 text, got the byte 0x00 at line 1, byte 2"),
            (b"\xff\xfe\0\0a\0\0\0", "expected UTF-8 text, got UTF-32"),
            (b"\xff\xfe\n\0\0\xd8", "expected UTF-16 text, got half a pair at line 2"),
            (b"\xff\xfea", "expected UTF-16 text, got an odd number of bytes"),
        ] {
            assert_eq!(decode(bytes).unwrap_err(), format!("{expected}; try saving it as UTF-8"));
        }
    }

    #[test]
    fn files_are_named() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("list.txt");
        std::fs::write(&path, b"\xfcber").unwrap();
        let message = read(&path).unwrap_err().to_string();
        assert!(message.starts_with(&path.display().to_string()), "{message}");
        std::fs::write(&path, b"\xef\xbb\xbf{\"a\": 1}").unwrap();
        assert_eq!(read_json::<serde_json::Value>(&path).unwrap()["a"], 1);
        std::fs::write(&path, b"{").unwrap();
        assert!(
            read_json::<serde_json::Value>(&path).unwrap_err().to_string().contains("expected JSON, got ")
        );
    }
}
