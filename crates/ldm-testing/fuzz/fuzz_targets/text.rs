#![no_main]

use ldm_core::text::{decode, decode_json};
use ldm_fuzz::bounded;
use serde_json::Value;

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    if let Some(text) = bounded(bytes.len(), || decode(bytes)) {
        assert!(!text.contains(['\r', '\0']), "{text:?}");
    }
    bounded(bytes.len(), || decode_json::<Value>(bytes));
});
