//! Contents of written files: one is replaced only by another of the same content.

use std::fmt;
use std::fs::File;
use std::io::Read;
use std::path::Path;

use crate::{Error, Result};

/// The content of a file that a command writes where the user says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FileContent {
    /// An image.
    Png,
    /// Tensors.
    Safetensors,
    /// Arrays of NumPy.
    Npz,
}

impl FileContent {
    /// Checks that a file at `path`, if there is one, begins as this content does. A program that replaces no other file
    /// cannot destroy one after a mistake in a path.
    ///
    /// # Errors
    /// [`Error::Invalid`] with the file; [`Error::Io`].
    pub fn check_replaceable(self, path: impl AsRef<Path>) -> Result<()> {
        let path = path.as_ref();
        if !path.exists() {
            return Ok(());
        }
        let refuse = |got: &str| {
            let got = format!("{got}; try another path");
            Err(Error::expected(path.display(), format!("{self} in a file that is replaced"), got))
        };
        if !path.is_file() {
            return refuse(if path.is_dir() { "a folder" } else { "a device, a pipe or a socket" });
        }
        let mut head = Vec::new();
        File::open(path).and_then(|file| file.take(256).read_to_end(&mut head)).map_err(Error::io(path))?;
        if self.begins(&head) { Ok(()) } else { refuse("other content") }
    }

    fn begins(self, head: &[u8]) -> bool {
        match self {
            Self::Png => head.starts_with(b"\x89PNG\r\n\x1a\n"),
            // A length below 2^40, then JSON.
            Self::Safetensors => head.len() > 8 && head[5..8] == [0; 3] && head[8] == b'{',
            // A zip archive; the name of its first member follows a header of 30 bytes.
            Self::Npz => {
                let length = head.get(26..28).map_or(0, |length| usize::from(length[0]));
                let name = head.get(30..30 + length).unwrap_or_default();
                head.starts_with(b"PK\x03\x04") && name.ends_with(b".npy")
            }
        }
    }
}

impl fmt::Display for FileContent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Png => "a PNG",
            Self::Safetensors => "safetensors",
            Self::Npz => "a NumPy archive",
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_file_of_the_same_content_is_replaced() {
        let folder = tempfile::tempdir().unwrap();
        let png = b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR".to_vec();
        let safetensors = [&[2, 0, 0, 0, 0, 0, 0, 0][..], b"{}"].concat();
        let member = |name: &str| {
            let header = [&b"PK\x03\x04"[..], &[0; 22], &[name.len() as u8, 0, 0, 0]].concat();
            [&header, name.as_bytes()].concat()
        };
        let all =
            [png, safetensors, member("mu.npy"), member("word/document.xml"), Vec::new(), b"text".to_vec()];
        let contents = [FileContent::Png, FileContent::Safetensors, FileContent::Npz];
        let path = folder.path().join("file");
        for (number, bytes) in all.iter().enumerate() {
            std::fs::write(&path, bytes).unwrap();
            for (index, content) in contents.into_iter().enumerate() {
                assert_eq!(content.check_replaceable(&path).is_ok(), number == index, "{content} {number}");
            }
        }
        let error = FileContent::Png.check_replaceable(&path).unwrap_err().to_string();
        assert!(
            error.ends_with("expected a PNG in a file that is replaced, got other content; try another path")
        );
        let error = FileContent::Png.check_replaceable(folder.path()).unwrap_err().to_string();
        assert!(error.ends_with("got a folder; try another path"), "{error}");
        FileContent::Png.check_replaceable(folder.path().join("new")).unwrap();
    }
}
