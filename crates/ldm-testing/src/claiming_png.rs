//! A small image file that claims to be large.

/// A gray PNG of `side` x `side` pixels by its header, with hardly any data.
pub fn claiming_png(side: u32) -> Vec<u8> {
    let mut file = Vec::new();
    let mut writer = png::Encoder::new(&mut file, side, side).write_header().unwrap();
    writer.write_chunk(png::chunk::IDAT, &[0x78, 1]).unwrap();
    drop(writer);
    file
}
