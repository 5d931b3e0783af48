//! Images in JSON.

use base64::Engine;
use base64::alphabet::STANDARD;
use base64::engine::DecodePaddingMode;
use base64::engine::general_purpose::{GeneralPurpose, GeneralPurposeConfig};

use crate::ServeError;

/// Clients send padding or not.
const BASE64: GeneralPurpose = GeneralPurpose::new(
    &STANDARD,
    GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent),
);

/// The bytes of base64, or of a `data:` URL.
///
/// # Errors
/// For another URL, and text that is not base64.
pub(crate) fn decode(field: &str, text: &str) -> Result<Vec<u8>, ServeError> {
    let text = text.trim();
    let data = match text.split_once(',') {
        Some((head, data)) if head.starts_with("data:") && head.ends_with(";base64") => data,
        _ if text.starts_with("http://") || text.starts_with("https://") || text.starts_with("file:") => {
            return Err(ServeError::invalid(
                field,
                "expected base64, got a URL, which this server does not fetch",
            ));
        }
        _ => text,
    };
    let compact;
    let data = if data.contains(char::is_whitespace) {
        compact = data.split_whitespace().collect::<String>();
        &compact
    } else {
        data
    };
    BASE64.decode(data).map_err(|error| ServeError::invalid(field, format!("expected base64: {error}")))
}

/// Base64 of bytes.
pub(crate) fn encode(bytes: &[u8]) -> String {
    BASE64.encode(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn base64_is_read_as_clients_write_it() {
        for text in ["aGk=", "aGk", " aG\nk= ", "data:image/png;base64,aGk="] {
            assert_eq!(decode("image", text).unwrap(), b"hi", "{text}");
        }
        for text in ["a", "%%", "http://169.254.169.254/x.png", "file:///etc/passwd", "data:image/png,aGk="] {
            let error = decode("image", text).unwrap_err();
            assert!(error.message.starts_with("image: expected base64"), "{error}");
        }
    }
}
