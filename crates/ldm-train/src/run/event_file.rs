//! TensorBoard event files: the scalars and images of the log.
//!
//! A file is a TFRecord of protocol buffers. The four messages that a run needs have a dozen fields in total and have
//! not changed since 2016; they are encoded by hand, as the crates for them are not maintained.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use ldm_core::{Error, Result};

/// Beginning of the name, before its time in seconds.
const PREFIX: &str = "events.out.tfevents.";

/// An event file under construction.
#[derive(Debug)]
pub(crate) struct EventFile {
    file: File,
    path: PathBuf,
}

impl EventFile {
    /// Creates a file in `folder`. `from` is the step of a resumed run: TensorBoard drops later steps of earlier files.
    pub(crate) fn create(folder: &Path, from: Option<u64>) -> Result<Self> {
        std::fs::create_dir_all(folder).map_err(Error::io(folder))?;
        let now = wall_time();
        // TensorBoard reads files in the order of their names, and a clock may have been set back. Nanoseconds distinguish
        // the files of one process.
        let time = (now as u64).max(newest(folder)?.map_or(0, |newest| newest + 1));
        let name = format!("{PREFIX}{time:010}.{:09}.{}.ldm", nanoseconds(), std::process::id());
        let path = folder.join(name);
        let file = File::create_new(&path).map_err(Error::io(&path))?;
        let mut events = Self { file, path };
        events.write(&event(now, 0, FILE_VERSION, b"brain.Event:2"))?;
        if let Some(step) = from {
            let start = message(|out| varint_field(out, 1, 1)); // SessionLog { status: START }
            events.write(&event(now, step, SESSION_LOG, &start))?;
        }
        Ok(events)
    }

    /// Writes scalars of a step by name.
    pub(crate) fn scalars(&mut self, step: u64, values: &BTreeMap<String, f64>) -> Result<()> {
        let summary = message(|out| {
            for (name, value) in values {
                let value = message(|out| {
                    bytes_field(out, 1, name.as_bytes());
                    out.push(2 << 3 | 5);
                    out.extend((*value as f32).to_le_bytes());
                });
                bytes_field(out, 1, &value);
            }
        });
        self.write(&event(wall_time(), step, SUMMARY, &summary))
    }

    /// Writes an image, as the bytes of a PNG file.
    pub(crate) fn image(&mut self, step: u64, name: &str, png: &[u8]) -> Result<()> {
        // Width and height are the first fields of a PNG's first chunk.
        let side = |at: usize| {
            png.get(at..at + 4).map_or(0, |side| u32::from_be_bytes(side.try_into().expect("four")))
        };
        let image = message(|out| {
            varint_field(out, 1, u64::from(side(20)));
            varint_field(out, 2, u64::from(side(16)));
            varint_field(out, 3, 3); // RGB
            bytes_field(out, 4, png);
        });
        let value = message(|out| {
            bytes_field(out, 1, name.as_bytes());
            bytes_field(out, 4, &image);
        });
        let summary = message(|out| bytes_field(out, 1, &value));
        self.write(&event(wall_time(), step, SUMMARY, &summary))
    }

    /// Writes a record in one call, so that readers see whole records.
    fn write(&mut self, event: &[u8]) -> Result<()> {
        self.file.write_all(&record(event)).map_err(Error::io(&self.path))
    }
}

/// Fields of the message `Event` for its content.
const FILE_VERSION: u64 = 3;
const SUMMARY: u64 = 5;
const SESSION_LOG: u64 = 7;

fn event(wall_time: f64, step: u64, field: u64, content: &[u8]) -> Vec<u8> {
    message(|out| {
        out.push(1 << 3 | 1);
        out.extend(wall_time.to_le_bytes());
        if step != 0 {
            varint_field(out, 2, step); // zeros are omitted, as everywhere in this format
        }
        bytes_field(out, field, content);
    })
}

fn record(content: &[u8]) -> Vec<u8> {
    let length = (content.len() as u64).to_le_bytes();
    let mut out = Vec::with_capacity(content.len() + 16);
    out.extend(length);
    out.extend(masked_crc(&length).to_le_bytes());
    out.extend(content);
    out.extend(masked_crc(content).to_le_bytes());
    out
}

/// TFRecord's checksum, rotated and shifted: CRCs of data that holds CRCs would be weak.
fn masked_crc(content: &[u8]) -> u32 {
    crc32c::crc32c(content).rotate_right(15).wrapping_add(0xa282_ead8)
}

fn message(fill: impl FnOnce(&mut Vec<u8>)) -> Vec<u8> {
    let mut out = Vec::new();
    fill(&mut out);
    out
}

fn varint(out: &mut Vec<u8>, mut value: u64) {
    while value >= 0x80 {
        out.push(value as u8 | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
}

fn varint_field(out: &mut Vec<u8>, field: u64, value: u64) {
    varint(out, field << 3);
    varint(out, value);
}

fn bytes_field(out: &mut Vec<u8>, field: u64, value: &[u8]) {
    varint(out, field << 3 | 2);
    varint(out, value.len() as u64);
    out.extend(value);
}

fn wall_time() -> f64 {
    SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).map_or(0., |since| since.as_secs_f64())
}

/// The time in the name of the newest file of `folder`.
fn newest(folder: &Path) -> Result<Option<u64>> {
    let entries = std::fs::read_dir(folder).map_err(Error::io(folder))?;
    let time = |name: &str| name.strip_prefix(PREFIX)?.split('.').next()?.parse::<u32>().ok();
    Ok(entries.flatten().filter_map(|entry| time(entry.file_name().to_str()?)).max().map(u64::from))
}

fn nanoseconds() -> u32 {
    SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).map_or(0, |since| since.subsec_nanos())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The records of TensorBoard's own `EventFileWriter` (tests/golden/generate_events.py).
    #[test]
    fn records_match_tensorboard() {
        let golden = include_bytes!("../../tests/golden/events.bin");
        let summary = message(|out| {
            let value = message(|out| {
                bytes_field(out, 1, b"val/psnr");
                out.push(2 << 3 | 5);
                out.extend(27.25f32.to_le_bytes());
            });
            bytes_field(out, 1, &value);
        });
        let session = message(|out| varint_field(out, 1, 1));
        let ours = [
            record(&event(1.5, 0, FILE_VERSION, b"brain.Event:2")),
            record(&event(2.25, 300, SUMMARY, &summary)),
            record(&event(3.5, 70_000, SESSION_LOG, &session)),
        ]
        .concat();
        assert_eq!(ours, golden);
    }

    #[test]
    fn a_later_file_sorts_behind_earlier_ones_also_after_a_change_of_the_clock() {
        let folder = tempfile::tempdir().unwrap();
        let future = folder.path().join("events.out.tfevents.4000000000.999999999.7.ldm");
        std::fs::write(&future, b"").unwrap();
        let events = EventFile::create(folder.path(), None).unwrap();
        assert!(events.path > future, "{}", events.path.display());
        assert!(EventFile::create(folder.path(), None).unwrap().path > events.path);
    }

    #[test]
    fn a_file_begins_with_its_version_and_holds_whole_records() {
        let folder = tempfile::tempdir().unwrap();
        let mut events = EventFile::create(folder.path(), Some(7)).unwrap();
        events.scalars(8, &BTreeMap::from([("loss".to_owned(), 0.5)])).unwrap();
        let mut png = vec![0; 24];
        png[16..24].copy_from_slice(&[0, 0, 1, 0, 0, 0, 0, 9]);
        events.image(8, "samples", &png).unwrap();
        let bytes = std::fs::read(&events.path).unwrap();
        let (mut rest, mut records) = (bytes.as_slice(), Vec::new());
        while !rest.is_empty() {
            let length = u64::from_le_bytes(rest[..8].try_into().unwrap()) as usize;
            let content = &rest[12..12 + length];
            assert_eq!(rest[..16 + length], record(content));
            records.push(content.to_vec());
            rest = &rest[16 + length..];
        }
        assert_eq!(records.len(), 4);
        assert!(records[0].ends_with(b"brain.Event:2"));
        let image = &records[3];
        assert!(
            image.windows(6).any(|part| part == [1 << 3, 9, 2 << 3, 0x80, 2, 3 << 3]),
            "9 high, 256 wide, RGB"
        );
    }
}
