//! The loss of JPEG compression, without its bytes: chrominance at half size, quantized cosines, and back.

use std::f64::consts::PI;

use image::RgbImage;

/// A plane of samples.
struct Plane {
    width: usize,
    height: usize,
    values: Vec<f64>,
}

/// The tables of ITU T.81, annex K: luminance and chrominance.
const TABLES: [[u16; 64]; 2] = [
    [
        16, 11, 10, 16, 24, 40, 51, 61, 12, 12, 14, 19, 26, 58, 60, 55, 14, 13, 16, 24, 40, 57, 69, 56, 14,
        17, 22, 29, 51, 87, 80, 62, 18, 22, 37, 56, 68, 109, 103, 77, 24, 35, 55, 64, 81, 104, 113, 92, 49,
        64, 78, 87, 103, 121, 120, 101, 72, 92, 95, 98, 112, 100, 103, 99,
    ],
    [
        17, 18, 24, 47, 99, 99, 99, 99, 18, 21, 26, 66, 99, 99, 99, 99, 24, 26, 56, 99, 99, 99, 99, 99, 47,
        66, 99, 99, 99, 99, 99, 99, 99, 99, 99, 99, 99, 99, 99, 99, 99, 99, 99, 99, 99, 99, 99, 99, 99, 99,
        99, 99, 99, 99, 99, 99, 99, 99, 99, 99, 99, 99, 99, 99,
    ],
];

/// Compresses and decompresses an image at a quality, as libjpeg with its defaults (4:2:0, smooth upsampling), but for
/// a few values at ties: its weights have 13 bits, here they are floats.
pub(crate) fn jpeg_round_trip(image: &RgbImage, quality: u8) -> RgbImage {
    let (width, height) = (image.width() as usize, image.height() as usize);
    let [luma, blue, red] = to_ycc(image);
    let luma = quantized(luma, &table(0, quality));
    let chroma =
        |plane: Plane| widened(&quantized(halved(&plane, height), &table(1, quality)), width, height);
    let (blue, red) = (chroma(blue), chroma(red));
    let mut raw = Vec::with_capacity(3 * width * height);
    for row in 0..height {
        for column in 0..width {
            let y = luma.values[row * luma.width + column];
            let [cb, cr] = [&blue, &red].map(|plane| plane.values[row * width + column] - 128.);
            let rgb = [
                y + (1.402 * cr).round(),
                y + (-0.344_136_286 * cb - 0.714_136_286 * cr).round(),
                y + (1.772 * cb).round(),
            ];
            raw.extend(rgb.map(|value| value.clamp(0., 255.) as u8));
        }
    }
    RgbImage::from_raw(width as u32, height as u32, raw).expect("three bytes a pixel")
}

/// Scales a table by the quality as the Independent JPEG Group defines it.
fn table(which: usize, quality: u8) -> [f64; 64] {
    let quality = u32::from(quality.clamp(1, 100));
    let scale = if quality < 50 { 5000 / quality } else { 200 - 2 * quality };
    TABLES[which].map(|step| ((u32::from(step) * scale + 50) / 100).clamp(1, 255) as f64)
}

/// Converts to luminance and two chrominances, each padded to blocks of 16 by its last column and row.
fn to_ycc(image: &RgbImage) -> [Plane; 3] {
    let (width, height) = (image.width(), image.height());
    let padded = [width, height].map(|side| side.next_multiple_of(16));
    let plane = |weights: [f64; 3], offset: f64| {
        let mut values = Vec::with_capacity((padded[0] * padded[1]) as usize);
        for row in 0..padded[1] {
            for column in 0..padded[0] {
                let pixel = image.get_pixel(column.min(width - 1), row.min(height - 1)).0;
                let sum: f64 = pixel.iter().zip(weights).map(|(&v, weight)| f64::from(v) * weight).sum();
                values.push((sum + offset + 0.5).floor());
            }
        }
        Plane { width: padded[0] as usize, height: padded[1] as usize, values }
    };
    let below_half = 128. - 1e-5; // libjpeg rounds halves of chrominance down
    [
        plane([0.299, 0.587, 0.114], 0.),
        plane([-0.168_735_892, -0.331_264_108, 0.5], below_half),
        plane([0.5, -0.418_687_589, -0.081_312_411], below_half),
    ]
}

/// Means of two by two; halves are rounded down and up alternately along a row, and rows below the image's `rows`
/// repeat the last, as libjpeg does.
fn halved(plane: &Plane, rows: usize) -> Plane {
    let (width, height) = (plane.width / 2, plane.height / 2);
    let mut values = Vec::with_capacity(width * height);
    for row in 0..height {
        let row = row.min(rows.div_ceil(2) - 1);
        for column in 0..width {
            let at = 2 * row * plane.width + 2 * column;
            let under = at + plane.width;
            let sum = plane.values[at] + plane.values[at + 1] + plane.values[under] + plane.values[under + 1];
            values.push(((sum + (1 + column % 2) as f64) / 4.).floor());
        }
    }
    Plane { width, height, values }
}

/// Upsamples by two: three quarters of the nearest sample and a quarter of the next, in both directions, cropped to a
/// size. libjpeg `jdsample.c` `h2v2_fancy_upsample`.
fn widened(plane: &Plane, width: usize, height: usize) -> Plane {
    let last = [width.div_ceil(2) - 1, height.div_ceil(2) - 1];
    let sample = |row: usize, column: usize| plane.values[row * plane.width + column];
    // The neighbor of `k / 2` that is nearer to `k`.
    let neighbor = |k: usize, last: usize| {
        let near = k / 2;
        if k.is_multiple_of(2) { near.saturating_sub(1) } else { (near + 1).min(last) }
    };
    let mut values = Vec::with_capacity(width * height);
    for row in 0..height {
        let (near, next) = (row / 2, neighbor(row, last[1]));
        let sum = |column: usize| 3. * sample(near, column) + sample(next, column);
        for column in 0..width {
            let round = if column % 2 == 0 { 8. } else { 7. };
            let value = 3. * sum(column / 2) + sum(neighbor(column, last[0])) + round;
            values.push((value / 16.).floor());
        }
    }
    Plane { width, height, values }
}

/// The square root of 8: the factor between libjpeg's cosines of eight values and the orthonormal ones.
const SCALE: f64 = 2. * std::f64::consts::SQRT_2;

/// Quantizes the cosines of every block of 8 by 8 by the table, and transforms back. Rounded where libjpeg's
/// `jfdctint.c` and `jidctint.c` round: two bits remain between rows and columns, and three of a cosine.
fn quantized(mut plane: Plane, table: &[f64; 64]) -> Plane {
    let cosines = cosines();
    for top in (0..plane.height).step_by(8) {
        for left in (0..plane.width).step_by(8) {
            let mut block = [[0f64; 8]; 8];
            for (y, row) in block.iter_mut().enumerate() {
                let at = (top + y) * plane.width + left;
                row.iter_mut().zip(&plane.values[at..]).for_each(|(into, value)| *into = value - 128.);
            }
            let rows = rounded(product(&block, &transposed(&cosines)), SCALE * 4.);
            let mut waves = rounded(product(&cosines, &rows), SCALE / 4.);
            for (k, wave) in waves.iter_mut().flatten().enumerate() {
                *wave = (*wave / (8. * table[k])).round() * table[k];
            }
            let columns = rounded(product(&transposed(&cosines), &waves), SCALE * 4.);
            let block = rounded(product(&columns, &cosines), SCALE / 32.);
            for (y, row) in block.iter().enumerate() {
                let at = (top + y) * plane.width + left;
                let into = plane.values[at..at + 8].iter_mut();
                into.zip(row).for_each(|(into, value)| *into = (value + 128.).clamp(0., 255.));
            }
        }
    }
    plane
}

type JpegBlock = [[f64; 8]; 8];

/// Orthonormal cosine transform of eight values.
fn cosines() -> JpegBlock {
    let mut cosines = [[0f64; 8]; 8];
    for (k, row) in cosines.iter_mut().enumerate() {
        let scale = if k == 0 { 8f64.sqrt().recip() } else { 0.5 };
        for (x, value) in row.iter_mut().enumerate() {
            *value = scale * ((2 * x + 1) as f64 * k as f64 * PI / 16.).cos();
        }
    }
    cosines
}

/// Multiplies by a scale and rounds, halves up.
fn rounded(mut a: JpegBlock, scale: f64) -> JpegBlock {
    a.iter_mut().flatten().for_each(|value| *value = (*value * scale + 0.5).floor());
    a
}

fn transposed(a: &JpegBlock) -> JpegBlock {
    let mut result = *a;
    for (y, row) in result.iter_mut().enumerate() {
        row.iter_mut().enumerate().for_each(|(x, value)| *value = a[x][y]);
    }
    result
}

fn product(a: &JpegBlock, b: &JpegBlock) -> JpegBlock {
    let mut result = [[0f64; 8]; 8];
    for (into, row) in result.iter_mut().zip(a) {
        for (weight, line) in row.iter().zip(b) {
            into.iter_mut().zip(line).for_each(|(sum, value)| *sum += weight * value);
        }
    }
    result
}
