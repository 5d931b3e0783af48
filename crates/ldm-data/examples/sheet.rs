//! tmp
use ldm_data::scenes::*;
fn main() {
    for (size, objects, cols, rows) in [(32u32, [1, 1], 20, 10), (32, [1, 4], 20, 10), (64, [1, 4], 12, 8), (128, [1, 4], 7, 5)] {
        let s = Scenes::new(SceneConfig { size, objects, ..Default::default() }).unwrap();
        let pad = 2;
        let mut im = image::RgbImage::from_pixel(cols * (size + pad), rows * (size + pad), image::Rgb([128, 128, 128]));
        for k in 0..cols * rows {
            let d = s.scene(k as usize).draw(size);
            let t = image::RgbImage::from_raw(size, size, d.pixels).unwrap();
            image::imageops::replace(&mut im, &t, ((k % cols) * (size + pad)) as i64, ((k / cols) * (size + pad)) as i64);
            if size == 128 && k < 14 { println!("{}", s.scene(k as usize).caption()); }
        }
        let up = if size == 32 { image::imageops::resize(&im, im.width() * 2, im.height() * 2, image::imageops::FilterType::Nearest) } else { im };
        up.save(format!("/tmp/sheets/{size}_{}.png", objects[1])).unwrap();
    }
    let s = Scenes::new(SceneConfig { size: 64, objects: [1, 4], ..Default::default() }).unwrap();
    let t = std::time::Instant::now();
    for k in 0..2000 { std::hint::black_box(ldm_data::Dataset::get(&s, k, 0).unwrap()); }
    println!("{} scenes/s", 2000. / t.elapsed().as_secs_f64());
}
