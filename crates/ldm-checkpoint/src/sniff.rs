//! What a file is, by its first bytes.

/// A kind of file that a reader here takes.
pub(crate) enum Head {
    Safetensors,
    Zip,
    Pickle,
}

/// Tells the reader, or says in words what the file is instead.
pub(crate) fn head(bytes: &[u8]) -> Result<Head, String> {
    // A length below 2^40, then JSON. First, since a length of 640 (`80 02`) begins as a pickle does.
    if bytes.len() > 8 && bytes[5..8] == [0; 3] && bytes[8] == b'{' {
        return Ok(Head::Safetensors);
    }
    if bytes.starts_with(b"PK\x03\x04") {
        return Ok(Head::Zip);
    }
    // Protocol 2 and later begin by their number.
    if bytes.len() > 1 && bytes[0] == 0x80 && (2..=5).contains(&bytes[1]) {
        return Ok(Head::Pickle);
    }
    Err(name(bytes).into())
}

/// Whether the file is a JSON object, as the index of a checkpoint in several files.
pub(crate) fn is_json(bytes: &[u8]) -> bool {
    // A header's length may begin by this character too, but no text has a zero so early.
    bytes.trim_ascii_start().first() == Some(&b'{') && !bytes.iter().take(8).any(|byte| *byte == 0)
}

fn name(bytes: &[u8]) -> &'static str {
    let begins = |head: &[u8]| bytes.starts_with(head);
    let text = String::from_utf8_lossy(&bytes[..bytes.len().min(512)]).trim_start().to_lowercase();
    if begins(b"version https://git-lfs") {
        "a git-lfs pointer and not the file it points to: fetch it with `git lfs pull`"
    } else if ["<!doctype html", "<html", "<head", "<?xml"].iter().any(|tag| text.starts_with(tag)) {
        "a web page and not the file it was to be: download it again"
    } else if begins(b"\x1f\x8b") {
        "a gzip archive: unpack it first"
    } else if bytes.get(257..262) == Some(b"ustar") {
        "a tar archive: unpack it first (a checkpoint from before PyTorch 0.1.10 must be saved again)"
    } else if begins(b"\x89HDF") {
        "an HDF5 file, expected safetensors or what torch.save wrote"
    } else if begins(b"GGUF") {
        "a GGUF file, expected safetensors or what torch.save wrote"
    } else if bytes.iter().take(4096).all(|byte| *byte == 0) {
        "nothing but zero bytes: the download or the copy did not finish"
    } else {
        "neither safetensors nor what torch.save wrote"
    }
}
