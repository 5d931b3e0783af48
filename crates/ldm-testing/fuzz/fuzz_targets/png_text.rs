#![no_main]

use ldm_fuzz::{Folder, bounded};
use ldm_study::inspect::inspect;

/// Bytes of a pixel in the reader and in the search for a watermark.
const PIXEL: usize = 64;

thread_local! {
    static FOLDER: Folder = Folder::new();
}

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    if !bytes.starts_with(b"\x89PNG\r\n\x1a\n") {
        return; // a weight file, which other targets read
    }
    let side = |at: usize| bytes.get(at..at + 4).map_or(0, |side| u32::from_be_bytes(side.try_into().unwrap()));
    let pixels = side(16) as usize * side(20) as usize;
    if pixels > 1 << 20 {
        return;
    }
    let path = FOLDER.with(|folder| folder.write("a.png", bytes));
    if let Some(report) = bounded(bytes.len() + PIXEL / 4 * pixels, || inspect(&path, None)) {
        let _ = report.text();
        report.document();
    }
});
