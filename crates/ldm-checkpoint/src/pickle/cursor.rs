//! A bounds-checked cursor over the bytes of a pickle.

/// The most bytes of a name; longer than any class name.
pub(crate) const NAME: usize = 4096;

/// A position in a file.
pub(crate) struct Cursor<'a> {
    pub(crate) bytes: &'a [u8],
    pub(crate) at: usize,
}

impl<'a> Cursor<'a> {
    pub(crate) fn take(&mut self, count: usize) -> Result<&'a [u8], String> {
        let bytes = self.bytes; // a copied reference, so that the result outlives `self`
        let end = self.at.checked_add(count).filter(|end| *end <= bytes.len());
        let end = end.ok_or_else(|| format!("truncated pickle: it ends at byte {}", bytes.len()))?;
        let taken = &bytes[self.at..end];
        self.at = end;
        Ok(taken)
    }

    pub(crate) fn byte(&mut self) -> Result<u8, String> {
        Ok(self.take(1)?[0])
    }

    pub(crate) fn array<const N: usize>(&mut self) -> Result<[u8; N], String> {
        Ok(self.take(N)?.try_into().expect("N bytes were taken"))
    }

    /// Reads a length of `width` bytes, then that many bytes.
    pub(crate) fn sized(&mut self, width: usize) -> Result<&'a [u8], String> {
        let mut length = [0; 8];
        length[..width].copy_from_slice(self.take(width)?);
        self.take(usize::try_from(u64::from_le_bytes(length)).unwrap_or(usize::MAX))
    }

    pub(crate) fn line(&mut self) -> Result<&'a str, String> {
        let rest = &self.bytes[self.at..];
        // Names are short; a missing end must not cost a scan of gigabytes for each opcode.
        let Some(length) = rest.iter().take(NAME).position(|byte| *byte == b'\n') else {
            let place = self.at;
            self.take(NAME)?;
            return Err(damaged("invalid name", place));
        };
        let line = self.take(length)?;
        self.take(1)?;
        std::str::from_utf8(line).map_err(|_| damaged("invalid name", self.at))
    }
}

/// Returns the error text for an invalid value.
pub(crate) fn damaged(what: &str, place: usize) -> String {
    format!("damaged pickle: {what} at byte {place}")
}
