//! The text in an image.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{BufReader, Read};
use std::path::Path;

use anyhow::{Context, bail};
use ldm_core::image;
use ldm_pipelines::watermark;
use serde_json::json;

pub(super) fn is_png(path: &Path) -> anyhow::Result<bool> {
    let context = || path.display().to_string();
    let mut head = [0; 8];
    let count = File::open(path).and_then(|mut file| file.read(&mut head)).with_context(context)?;
    Ok(count == 8 && head == *b"\x89PNG\r\n\x1a\n")
}

/// Prints the text chunks, and Stable Diffusion's watermark where it is found.
pub(super) fn print(path: &Path, as_json: bool) -> anyhow::Result<()> {
    let context = || path.display().to_string();
    let file = File::open(path).with_context(context)?;
    let mut reader = png::Decoder::new(BufReader::new(file)).read_info().with_context(context)?;
    let mut row = vec![0; reader.output_buffer_size().context("an image that fits in memory")?];
    reader.next_frame(&mut row).with_context(context)?;
    reader.finish().with_context(context)?;
    let info = reader.info();
    let mut texts: BTreeMap<String, String> = BTreeMap::new();
    for chunk in &info.utf8_text {
        texts.insert(chunk.keyword.clone(), chunk.get_text()?);
    }
    for chunk in &info.uncompressed_latin1_text {
        texts.insert(chunk.keyword.clone(), chunk.text.clone());
    }
    let hidden = watermark::read(&image::read(path)?, watermark::STABLE_DIFFUSION.len());
    if hidden == watermark::STABLE_DIFFUSION {
        texts.insert("watermark".into(), String::from_utf8_lossy(&hidden).into_owned());
    }
    if as_json {
        println!("{:#}", json!({"path": path, "width": info.width, "height": info.height, "texts": texts}));
    } else if texts.is_empty() {
        bail!("{}: an image of {}x{} without text", path.display(), info.width, info.height);
    } else {
        println!("{}: {}x{}", path.display(), info.width, info.height);
        for (keyword, text) in texts {
            println!("{keyword}: {text}");
        }
    }
    Ok(())
}
