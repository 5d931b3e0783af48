#![no_main]

use ldm_checkpoint::parse_bytes;
use ldm_fuzz::check;

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| check(bytes, parse_bytes));
