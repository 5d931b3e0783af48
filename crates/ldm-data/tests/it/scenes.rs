//! Scenes: equal at every call and size; captions, boxes, classes and label maps describe the pixels.

use std::collections::HashSet;

use ldm_data::Dataset;
use ldm_data::scenes::{Fill, Scene, SceneConfig, Scenes, Shape, Size, Split, parse};
use proptest::prelude::*;

fn scenes(config: SceneConfig) -> Scenes {
    Scenes::new(config).unwrap()
}

fn some(count: usize) -> impl Iterator<Item = Scene> {
    let set = scenes(SceneConfig { objects: [1, 4], ..SceneConfig::default() });
    (0..count).map(move |index| set.scene(index))
}

#[test]
fn a_scene_is_the_same_at_every_call() {
    let [one, two] = [0, 1].map(|_| scenes(SceneConfig::default()));
    for index in [0, 1, 77, 99_999] {
        assert_eq!(one.get(index, 1).unwrap(), two.get(index, 2).unwrap());
    }
    assert_ne!(one.scene(3), scenes(SceneConfig { seed: 1, ..SceneConfig::default() }).scene(3));
}

/// Pins the first scene to the pixel: a change here changes every run that trains on scenes.
#[test]
fn scenes_do_not_change_between_versions() {
    let scene = scenes(SceneConfig { objects: [2, 2], ..SceneConfig::default() }).scene(0);
    assert_eq!(
        scene.caption(),
        "a medium dotted red circle on the right and a small red arrow at the bottom left, on a mint background"
    );
    let sum: u64 = scene.draw(64).pixels.iter().map(|&value| u64::from(value)).sum();
    // A last bit of a sine may differ between machines.
    assert!(sum.abs_diff(2_415_355) < 100, "{sum}");
}

#[test]
fn a_scene_looks_the_same_at_every_size() {
    for scene in some(40) {
        let (small, large) = (scene.draw(32), scene.draw(256));
        // 8x8 pixels of the large image cover one of the small; edges and patterns average out alike.
        let mut worst = 0f64;
        let mut total = 0f64;
        for (index, value) in small.pixels.iter().enumerate() {
            let (channel, x, y) = (index % 3, index / 3 % 32, index / 96);
            let mean = (0..64)
                .map(|k| f64::from(large.pixels[((y * 8 + k / 8) * 256 + x * 8 + k % 8) * 3 + channel]))
                .sum::<f64>()
                / 64.;
            let off = (mean - f64::from(*value)).abs();
            worst = worst.max(off);
            total += off;
        }
        let mean = total / small.pixels.len() as f64;
        // An edge that is off by a pixel would be off by the contrast there, 100 and more.
        assert!(mean < 2.5 && worst < 64., "{}: {mean} on average, {worst} at most", scene.caption());
    }
}

#[test]
fn captions_are_parsed_back() {
    for scene in some(500) {
        assert_eq!(parse(&scene.caption()), Some(scene.words()), "{}", scene.caption());
    }
    for not in
        ["", "a dog", "a large red circle on the left", "a huge red circle on the left, on a sky background"]
    {
        assert_eq!(parse(not), None, "{not}");
    }
}

/// Left, top, right, bottom of the pixels that satisfy `shows`, in image sizes.
fn extent(side: usize, shows: impl Fn(usize) -> bool) -> [f64; 4] {
    let mut extent = [f64::MAX, f64::MAX, 0., 0.];
    for index in (0..side * side).filter(|&index| shows(index)) {
        let [x, y] = [index % side, index / side].map(|k| k as f64 / side as f64);
        let pixel = 1. / side as f64;
        extent = [extent[0].min(x), extent[1].min(y), extent[2].max(x + pixel), extent[3].max(y + pixel)];
    }
    extent
}

#[test]
fn boxes_are_exact_to_the_pixel() {
    let side = 256;
    for scene in some(120) {
        let bare = Scene { objects: Vec::new(), ..scene.clone() }.draw(side);
        for (object, boxed) in scene.objects.iter().zip(scene.boxes()) {
            assert_eq!(boxed.class, object.shape as i64);
            let [x, y, w, h] = boxed.rect;
            assert!(x >= 0. && y >= 0. && x + w <= 1. && y + h <= 1., "{boxed:?} leaves the image");
            let alone = Scene { objects: vec![*object], ..scene.clone() }.draw(side);
            let drawn =
                extent(side as usize, |k| alone.pixels[3 * k..3 * k + 3] != bare.pixels[3 * k..3 * k + 3]);
            for (drawn, boxed) in drawn.into_iter().zip([x, y, x + w, y + h]) {
                // Rounded outwards to whole pixels; the tip of a point covers too little of its pixel to be seen.
                let off = (drawn - boxed).abs() * f64::from(side);
                assert!(off <= 1.5, "{}: {off} pixels off", object.shape.word());
            }
        }
    }
}

#[test]
fn label_maps_show_each_object_where_its_box_is() {
    let side = 128;
    for scene in some(60) {
        let drawing = scene.draw(side);
        let mut labeled: Vec<u8> = drawing.labels.iter().copied().filter(|&label| label > 0).collect();
        labeled.sort_unstable();
        labeled.dedup();
        let mut expected: Vec<u8> = scene.objects.iter().map(|object| object.shape as u8 + 1).collect();
        expected.sort_unstable();
        expected.dedup();
        assert_eq!(labeled, expected);
        for (index, &label) in drawing.labels.iter().enumerate().filter(|(_, label)| **label > 0) {
            let [x, y] =
                [index as u32 % side, index as u32 / side].map(|k| (f64::from(k) + 0.5) / f64::from(side));
            let inside = scene.boxes().iter().any(|boxed| {
                let [x0, y0, w, h] = boxed.rect;
                // The center of a pixel that is half covered may be on the edge of the box; coverage has 16 levels.
                let edge = 0.1 / f64::from(side);
                let within =
                    |at: f64, start: f64, length: f64| at >= start - edge && at <= start + length + edge;
                boxed.class == i64::from(label) - 1 && within(x, x0, w) && within(y, y0, h)
            });
            assert!(
                inside,
                "a pixel of {} is in none of its boxes",
                Shape::ALL[usize::from(label) - 1].word()
            );
        }
    }
}

#[test]
fn objects_do_not_overlap() {
    for scene in some(300) {
        let covered = |objects: &[_]| {
            let scene = Scene { objects: objects.to_vec(), ..scene.clone() };
            scene.draw(64).labels.iter().filter(|label| **label > 0).count()
        };
        let apart: usize = scene.objects.iter().map(|object| covered(&[*object])).sum();
        assert_eq!(covered(&scene.objects), apart, "{}", scene.caption());
    }
}

#[test]
fn the_main_object_is_the_class_and_the_largest() {
    let set = scenes(SceneConfig { objects: [1, 4], ..SceneConfig::default() });
    for index in 0..300 {
        let example = set.get(index, 0).unwrap();
        let words = parse(example.caption.as_deref().unwrap()).unwrap();
        assert_eq!(example.class, Some(words.objects[0].shape as i64));
        assert!(words.objects[1..].iter().all(|other| other.size < words.objects[0].size));
        assert_eq!(example.boxes.len(), words.objects.len());
        assert!(words.objects.iter().all(|object| object.size != Size::Small || object.fill == Fill::Plain));
    }
}

#[test]
fn classes_and_counts_are_balanced() {
    let set = scenes(SceneConfig { objects: [1, 4], ..SceneConfig::default() });
    assert_eq!(set.classes().len(), Shape::ALL.len());
    let (mut classes, mut counts) = ([0; 10], [0; 4]);
    for index in 0..2000 {
        let scene = set.scene(index);
        classes[scene.objects[0].shape as usize] += 1;
        counts[scene.objects.len() - 1] += 1;
    }
    assert_eq!(classes, [200; 10]);
    assert!(counts.iter().all(|count| (430..570).contains(count)), "{counts:?}"); // 500, standard deviation 19
}

#[test]
fn words_are_about_equally_frequent() {
    let single = scenes(SceneConfig { objects: [1, 1], ..SceneConfig::default() });
    let mut counts = std::collections::BTreeMap::new();
    for index in 0..3000 {
        let object = single.scene(index).words().objects[0];
        for word in [object.size.word(), object.color.word(), object.place.word()] {
            *counts.entry(word).or_insert(0) += 1;
        }
    }
    assert_eq!(counts.len(), 3 + 10 + 9);
    for (word, count) in counts {
        assert!(count > 110, "{word}: {count} of 3000");
    }
}

#[test]
fn no_object_is_smaller_than_the_smallest() {
    for (smallest, objects) in [(Size::Medium, [1, 3]), (Size::Large, [1, 1])] {
        let set = scenes(SceneConfig { smallest, objects, ..SceneConfig::default() });
        let mut seen = HashSet::new();
        for object in (0..300).flat_map(|index| set.scene(index).objects) {
            assert!(object.size >= smallest, "{smallest:?}: {object:?}");
            seen.insert(object.size.word());
        }
        assert_eq!(seen.len(), Size::ALL.iter().filter(|size| **size >= smallest).count());
    }
}

#[test]
fn no_scene_is_in_both_splits() {
    let of = |split| {
        let set = scenes(SceneConfig { split, size: 16, ..SceneConfig::default() });
        (0..3000)
            .map(|index| set.get(index, 0).unwrap().image.iter().map(|value| value.to_bits()).collect())
            .collect()
    };
    let (train, validation): (HashSet<Vec<u32>>, HashSet<Vec<u32>>) =
        (of(Split::Train), of(Split::Validation));
    assert_eq!((train.len(), validation.len()), (3000, 3000));
    assert!(train.is_disjoint(&validation));
}

#[test]
fn invalid_configs_are_refused() {
    let check = |config: SceneConfig, expected: &str| {
        assert_eq!(Scenes::new(config).unwrap_err().to_string(), format!("scenes: {expected}"));
    };
    let base = SceneConfig::default();
    check(
        SceneConfig { smallest: Size::Large, ..base.clone() },
        "objects: expected [1, 1] with smallest: large, which leaves no smaller size for a second object, got [1, 3]",
    );
    check(SceneConfig { size: 8, ..base.clone() }, "size: expected 16 to 1024 pixels, got 8");
    check(
        SceneConfig { objects: [0, 2], ..base.clone() },
        "objects: expected [least, largest] within 1 to 4, got [0, 2]",
    );
    check(
        SceneConfig { objects: [3, 2], ..base.clone() },
        "objects: expected [least, largest] within 1 to 4, got [3, 2]",
    );
    check(SceneConfig { count: 0, ..base }, "count: expected at least 1, got 0");
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn any_scene_of_any_seed_is_valid(seed: u64, index in 0usize..1 << 40, size in 16u32..80) {
        let set = scenes(SceneConfig { seed, size, objects: [1, 4], count: usize::MAX, ..SceneConfig::default() });
        let example = set.get(index, 0).unwrap();
        prop_assert_eq!(example.image.len(), 3 * (size * size) as usize);
        prop_assert!(example.image.iter().all(|value| (-1. ..=1.).contains(value)));
    }
}
