//! Labels of stored images: captions, boxes, label maps.

use image::{GrayImage, Luma};
use ldm_data::{Dataset, collate};
use ldm_testing::Golden;
use tch::Device;

use crate::image_folder::{ImageFolder, png};

// ---- Captions ------------------------------------------------------------------------------------------------------

fn captions(set: &dyn Dataset) -> Vec<String> {
    (0..set.len()).map(|index| set.get(index, 0).unwrap().caption.unwrap()).collect()
}

#[test]
fn captions_come_from_a_table() {
    let set = ImageFolder::new(&["a", "b"])
        .with("named.tsv", "split\tkey\tcaption\nx\tb\ta boat\nx\ta\tan apple\n")
        .with("bare.tsv", "a.png\tone\nb.png\ttwo\nc.png\tthree\n");
    assert_eq!(
        captions(&*set.open("captions: {file: named.tsv, name: key, caption: caption}")),
        ["an apple", "a boat"]
    );
    assert_eq!(
        captions(&*set.open("captions: {file: named.tsv, name: key, caption: 2}")),
        ["an apple", "a boat"]
    );
    assert_eq!(captions(&*set.open("captions: {file: bare.tsv}")), ["one", "two"]);
    set.check_refused(
        "captions: {file: named.tsv, name: id, caption: 2}",
        "ROOT/named.tsv: expected a column `id`, got split, key, caption",
    );
    set.check_refused(
        "captions: {file: bare.tsv, caption: 2}",
        "ROOT/bare.tsv: line 1: expected 3 columns, got 2",
    );
}

#[test]
fn captions_come_from_json() {
    let coco = r#"{"images": [{"id": 7, "file_name": "a.png"}, {"id": 9, "file_name": "b.png"}],
        "annotations": [{"image_id": 9, "caption": "two "}, {"image_id": 7, "caption": "one"}]}"#;
    let set = ImageFolder::new(&["a", "b"])
        .with(
            "lines.jsonl",
            "{\"file_name\": \"a.png\", \"text\": \"one\"}\n\n{\"file_name\": \"b\", \"text\": [\"two\"]}\n",
        )
        .with("keys.jsonl", "{\"id\": \"a\", \"said\": \"one\"}\n{\"id\": \"b\", \"said\": \"two\"}\n")
        .with("coco.json", coco)
        .with("map.json", r#"{"a.png": "one", "b.png": ["two"]}"#);
    for source in ["lines.jsonl", "keys.jsonl, name: id, caption: said", "coco.json", "map.json"] {
        assert_eq!(
            captions(&*set.open(&format!("captions: {{file: {source}}}"))),
            ["one", "two"],
            "{source}"
        );
    }
    set.check_refused(
        "captions: {file: keys.jsonl}",
        "ROOT/keys.jsonl: line 1: expected `file_name`, got none",
    );
    set.check_missing("captions: {file: coco.txt}", "coco.txt");
}

#[test]
fn one_of_several_captions_is_drawn_by_the_seed() {
    let set = ImageFolder::new(&["a"]).with("map.json", r#"{"a": ["one", "two", "three"]}"#);
    let set = set.open("captions: {file: map.json}");
    let mut counts = std::collections::BTreeMap::new();
    for seed in 0..300 {
        *counts.entry(set.get(0, seed).unwrap().caption.unwrap()).or_insert(0) += 1;
        assert_eq!(set.get(0, seed).unwrap(), set.get(0, seed).unwrap());
    }
    assert!(counts.len() == 3 && counts.values().all(|count| (60..140).contains(count)), "{counts:?}");
}

#[test]
fn an_image_without_a_caption_is_refused_or_skipped() {
    let set = ImageFolder::new(&["a", "b", "c"]).with("map.json", r#"{"a": "one"}"#);
    set.check_refused(
        "captions: {file: map.json}",
        "images: expected a caption in map.json of every image, got none for 2 of 3, e.g. b.png; try missing: skip",
    );
    assert_eq!(captions(&*set.open("captions: {file: map.json, missing: skip}")), ["one"]);
    set.check_missing("captions: {file: map.json}, split: none.txt", "none.txt");
}

// ---- Boxes ---------------------------------------------------------------------------------------------------------

const TWO_BOXES: &str = r#"{
    "images": [{"id": 1, "file_name": "a.png", "width": 40, "height": 30},
               {"id": 2, "file_name": "b.png", "width": 40, "height": 30}],
    "categories": [{"id": 2, "name": "two"}, {"id": 10, "name": "ten"}, {"id": 3, "name": "other"}],
    "annotations": [
        {"image_id": 1, "category_id": 2, "bbox": [0, 0, 20, 15], "iscrowd": 1},
        {"image_id": 1, "category_id": 10, "bbox": [30, 15, 10, 15], "iscrowd": 0},
        {"image_id": 1, "category_id": 3, "bbox": [0, 0, 40, 30], "iscrowd": 0},
        {"image_id": 1, "category_id": 2, "bbox": [0, 0, 0.012, 1], "iscrowd": 0},
        {"image_id": 2, "category_id": 2, "bbox": [0, 0, 20, 15], "iscrowd": 0}]}"#;

#[test]
fn boxes_are_numbered_filtered_and_counted_like_the_reference() {
    let set = ImageFolder::new(&["a", "b"]).with("train.json", TWO_BOXES);
    let one = set.open("boxes: {annotations: train.json}, transform: {size: 8, resize: exact, crop: none}");
    assert_eq!(one.box_classes(), ["ten", "two"], "ids are sorted as strings, without `other`");
    assert_eq!(one.len(), 1, "b has one box, and at least two are required");
    let mut boxes = one.get(0, 0).unwrap().boxes;
    boxes.sort_by_key(|each| each.class);
    let found: Vec<_> = boxes.iter().map(|each| (each.class, each.rect)).collect();
    // The smallest is 1e-5 of the image, and only more than that counts.
    assert_eq!(found, [(0, [0.75, 0.5, 0.25, 0.5]), (1, [0., 0., 0.5, 0.5])]);
    assert_eq!(set.open("boxes: {annotations: [train.json], min_objects_per_image: 1}").len(), 2);
    let orders: std::collections::BTreeSet<i64> =
        (0..20).map(|seed| one.get(0, seed).unwrap().boxes[0].class).collect();
    assert_eq!(orders.len(), 2, "shuffled");
}

#[test]
fn invalid_boxes_are_refused() {
    let set =
        ImageFolder::new(&["a"]).with("train.json", TWO_BOXES).with("bad.json", r#"{"categories": []}"#);
    set.check_refused(
        "boxes: {annotations: train.json, min_objects_per_image: 1}",
        "ROOT/train.json: expected boxes of images of the dataset, got 1 names that are not there, e.g. b.png",
    );
    set.check_refused(
        "boxes: {annotations: train.json, min_objects_per_image: 3}",
        "ROOT/train.json: expected images with 3 to 30 boxes, got none",
    );
    set.check_refused(
        "boxes: {annotations: bad.json}",
        "ROOT/bad.json: expected COCO annotations, got a file without `images`",
    );
    set.check_refused(
        "boxes: {annotations: train.json, min_objects_per_image: 3, max_objects_per_image: 2}",
        "boxes: expected min_objects_per_image of at most max_objects_per_image, got 3 and 2",
    );
}

const CLASSES: &str = "/m/02,Dog\n/m/01s55n,Suitcase\n/m/09,Cat\n/m/08,Kitten\n";
const OPEN_IMAGES: &str = "ImageID,Source,LabelName,Confidence,XMin,XMax,YMin,YMax,IsOccluded
0a,xclick,/m/02,1,0.1,0.3,0.2,0.8,0
0a,xclick,/m/08,1,0.5,0.75,0.5,1,0
0a,xclick,/m/unknown,1,0,1,0,1,0
0b,xclick,/m/01s55n,1,0,1,0,1,0
0b,xclick,/m/02,1,0,0.001,0,0.001,0
0c,xclick,/m/02,1,0,1,0,1,0
";

#[test]
fn boxes_come_from_open_images() {
    let set = ImageFolder::new(&["000000000000000a", "000000000000000b", "other"])
        .with("train-bbox.csv", OPEN_IMAGES)
        .with("classes.csv", CLASSES);
    let keys = "annotations: train-bbox.csv, class_descriptions: classes.csv, min_objects_per_image: 1";
    let exact = "transform: {size: 8, resize: exact, crop: none}";
    let all = set.open(&format!("boxes: {{{keys}}}, {exact}"));
    assert_eq!(all.box_classes(), ["Dog", "Kitten", "Cat", "Suitcase"], "by id, and one last");
    assert_eq!(all.len(), 2, "0c has no file");
    let found = |set: &dyn Dataset, index: usize| {
        let mut boxes = set.get(index, 0).unwrap().boxes;
        boxes.sort_by_key(|each| each.class);
        boxes.iter().map(|each| (each.class, each.rect.map(|side| (side * 100.).round()))).collect::<Vec<_>>()
    };
    assert_eq!(found(&*all, 0), [(0, [10., 20., 20., 60.]), (1, [50., 50., 25., 50.])]);
    assert_eq!(found(&*all, 1), [(3, [0., 0., 100., 100.])], "a box of too small an area is ignored");
    let fewer = format!(
        "boxes: {{{keys}, category_allow_list: [Dog, Cat], category_mapping: {{/m/08: /m/09}}}}, {exact}"
    );
    let fewer = set.open(&fewer);
    assert_eq!(fewer.box_classes(), ["Dog", "Cat"]);
    assert_eq!(found(&*fewer, 0), [(0, [10., 20., 20., 60.]), (1, [50., 50., 25., 50.])]);
    assert_eq!(fewer.len(), 1);
}

#[test]
fn invalid_annotations_of_open_images_are_refused() {
    let set = ImageFolder::new(&["a"])
        .with("a.csv", "ImageID,LabelName\n")
        .with("b.csv", "ImageID,LabelName,XMin,XMax,YMin,YMax\na,/m/02,0,NaN,0,1\n")
        .with("classes.csv", CLASSES)
        .with("coco.json", "{}");
    set.check_refused(
        "boxes: {annotations: a.csv}",
        "boxes.class_descriptions: expected OpenImages' class-descriptions-boxable.csv with annotations in .csv, got none",
    );
    set.check_refused(
        "boxes: {annotations: a.csv, class_descriptions: classes.csv}",
        "ROOT/a.csv: expected OpenImages' column XMin, got ImageID, LabelName",
    );
    set.check_refused(
        "boxes: {annotations: b.csv, class_descriptions: classes.csv}",
        "ROOT/b.csv: line 2: expected a number as XMax, got NaN",
    );
    set.check_refused(
        "boxes: {annotations: coco.json, class_descriptions: classes.csv}",
        "boxes.class_descriptions: expected annotations in OpenImages' .csv, got coco.json",
    );
    set.check_refused(
        "boxes: {annotations: [coco.json, a.csv]}",
        "boxes.annotations: expected files of one format, got coco.json, a.csv",
    );
    set.check_refused(
        "boxes: {annotations: b.csv, class_descriptions: classes.csv, category_allow_list: [Cow]}",
        "boxes.category_allow_list: expected names of ROOT/classes.csv, got Cow",
    );
}

/// Crops, flips and the rescale quirk against taming-transformers' own functions (`golden/generate_boxes.py`).
#[test]
fn boxes_are_cropped_and_flipped_like_the_reference() {
    let golden =
        Golden::open(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/golden/boxes.safetensors"), Device::Cpu);
    let values = |name: &str| Vec::<f64>::try_from(golden.get(name).flatten(0, -1)).unwrap();
    let source = values("boxes");
    let annotations: Vec<String> = source
        .chunks(4)
        .enumerate()
        .map(|(class, b)| {
            let [x, y, w, h] = [b[0] * 40., b[1] * 30., b[2] * 40., b[3] * 30.];
            format!(r#"{{"image_id": 1, "category_id": {}, "bbox": [{x}, {y}, {w}, {h}]}}"#, class + 10)
        })
        .collect();
    let categories: Vec<String> =
        (10..10 + annotations.len()).map(|id| format!(r#"{{"id": {id}, "name": "{id}"}}"#)).collect();
    let document = format!(
        r#"{{"images": [{{"id": 1, "file_name": "a.png", "width": 40, "height": 30}}], "categories": [{}],
            "annotations": [{}]}}"#,
        categories.join(","),
        annotations.join(",")
    );
    let set = ImageFolder::new(&["a"]).with("train.json", document);
    let mut cases = 0;
    for (flip, word) in [(0, "straight"), (1, "flipped")] {
        for encode_crop in [false, true] {
            let set = set.open(&format!(
                "boxes: {{annotations: train.json, encode_crop: {encode_crop}}}, \
                 transform: {{size: 30, crop: center, flip: {flip}}}"
            ));
            let example = set.get(0, 3).unwrap();
            let mut boxes = example.boxes;
            boxes.sort_by_key(|each| each.class);
            let found: Vec<f64> =
                boxes.iter().flat_map(|b| [vec![b.class as f64], b.rect.to_vec()].concat()).collect();
            let name = format!("{word}.{}", if encode_crop { "whole" } else { "crop" });
            let expected = values(&name);
            assert_eq!(found.len(), expected.len(), "{name}");
            let apart = found.iter().zip(&expected).map(|(a, b)| (a - b).abs()).fold(0., f64::max);
            assert!(apart < 1e-12, "{name}: {apart}");
            let crop = values(&format!("{word}.shown"));
            assert!(example.crop.iter().zip(&crop).all(|(a, b)| (a - b).abs() < 1e-12), "{:?}", example.crop);
            cases += 1;
        }
    }
    assert_eq!(cases, 4);
}

// ---- Label maps ----------------------------------------------------------------------------------------------------

fn map() -> GrayImage {
    GrayImage::from_fn(40, 30, |x, y| Luma([(x / 10 + 4 * (y / 10)) as u8]))
}

#[test]
fn a_label_map_is_in_a_folder_in_another_archive_or_next_to_its_image() {
    let set = ImageFolder::new(&["images/a", "images/b"])
        .with("images/labels/a.png", png(map()))
        .with("images/labels/b.png", png(map()))
        .with("maps/a.png", png(map()))
        .with("maps/b.png", png(map()))
        .with("images/images/a_L.png", png(map()))
        .with("images/images/b_L.png", png(map()));
    for (files, count) in [("folder: labels", 4), ("path: maps", 6), ("suffix: _L", 4)] {
        // A map of another kind is an image here without a map: it is skipped.
        let set = set.open(&format!(
            "label_maps: {{files: {{{files}, missing: skip}}, n_labels: 12}}, transform: {{size: 12, flip: 0.5, \
             crop: random}}, task: {{target: semantic}}, classes: none"
        ));
        assert!(set.len() >= 2 && set.len() <= count, "{files}: {}", set.len());
        for seed in 0..8 {
            let index = (0..set.len()).find(|&k| set.peek(k).unwrap().name == "images/a.png").unwrap();
            let example = set.get(index, seed).unwrap();
            let labels = example.label_map.clone().unwrap();
            for (at, label) in labels.iter().enumerate() {
                let [x, y] = [0, 1].map(|c| (example.image[c * 144 + at] + 1.) * 127.5);
                let (column, row) = (f32::from(label % 4) * 10., f32::from(label / 4) * 10.);
                // Bicubic values between pixels, and the nearest label: within a pixel of the border of a field.
                assert!(
                    x > column - 3. && x < column + 13. && y > row - 3. && y < row + 13.,
                    "{x} {y} {label}"
                );
            }
            let prompt = collate(vec![example]).unwrap().prompt;
            let mask = prompt.mask.unwrap();
            assert_eq!(mask.size(), [1, 12, 12, 12]);
            let back = Vec::<i64>::try_from(mask.argmax(1, false).view([-1])).unwrap();
            assert!(back.iter().zip(&labels).all(|(a, b)| *a == i64::from(*b)));
        }
    }
}

#[test]
fn invalid_label_maps_are_refused() {
    let set = ImageFolder::new(&["a", "b"])
        .with("maps/a.png", png(map()))
        .with("maps/b.png", png(GrayImage::new(3, 4)));
    let files = "label_maps: {files: {path: maps}, n_labels:";
    set.check_refused(
        &format!("{files} 5}}"),
        "ROOT/maps/a.png: expected values of 5 labels, got 5 at column 10, row 10",
    );
    set.check_refused(&format!("{files} 12}}"), "ROOT/maps/b.png: expected 40x30 as its image, got 3x4");
    set.check_refused(
        "label_maps: {files: {}, n_labels: 3}",
        "label_maps.files: expected a path, a folder or a suffix that distinguishes the files from the images",
    );
    set.check_refused("task: {target: semantic}", "label_maps: expected with task: semantic, got none");
    let set = ImageFolder::new(&["a", "b"]).with("maps/a.png", png(map()));
    set.check_refused(
        &format!("{files} 12}}"),
        "images: expected a label map of every image, got none for 1 of 2, e.g. b.png; try missing: skip",
    );
}

// ---- ImageNet ------------------------------------------------------------------------------------------------------

fn imagenet() -> ImageFolder {
    ImageFolder::new(&["n03/a", "n01/b", "n02/c"])
        .with("synsets.yaml", "0: n00\n1: n03\n2: n01\n3: n02\n")
        .with("human.txt", "n01 tench, Tinca tinca\nn02 goldfish\nn03 \"great white shark\"\n")
        .with("numbers.txt", "{0: 'none',\n 1: 'shark',\n 2: 'tench',\n 3: \"fish\"}\n")
        .with("images/n02/n06596364_9591.JPEG", "a damaged image")
}

#[test]
fn classes_of_imagenet_are_selected_and_named() {
    let check = |keys: &str, names: &[&str], of: &[(&str, i64)]| {
        let folder = imagenet();
        let set = folder.open(&format!("imagenet: {{{keys}}}"));
        assert_eq!(set.classes(), names, "{keys}");
        let found: Vec<_> = (0..set.len())
            .map(|index| set.get(index, 0).unwrap())
            .map(|example| (example.name, example.class.unwrap()))
            .collect();
        let expected: Vec<_> = of.iter().map(|&(name, class)| (name.to_owned(), class)).collect();
        assert_eq!(found, expected, "{keys}");
    };
    check("", &["n01", "n02", "n03"], &[("n01/b.png", 0), ("n02/c.png", 1), ("n03/a.png", 2)]);
    check("sub_indices: '0, 2'", &["n01", "n03"], &[("n01/b.png", 0), ("n03/a.png", 1)]);
    check(
        "sub_indices: '1-3', synsets: synsets.yaml, human_labels: human.txt",
        &["tench, Tinca tinca", "great white shark"],
        &[("n01/b.png", 0), ("n03/a.png", 1)],
    );
    check(
        "sub_indices: '1-3', synsets: synsets.yaml, keep_orig_class_label: true, human_labels: numbers.txt",
        &["none", "shark", "tench", "fish"],
        &[("n01/b.png", 2), ("n03/a.png", 1)],
    );
}

#[test]
fn wrong_keys_of_imagenet_are_refused() {
    imagenet().check_refused(
        "imagenet: {sub_indices: '3'}",
        "imagenet.sub_indices: expected numbers below 3, the number of classes, got 3",
    );
    imagenet().with("images/n09/d.png", png(GrayImage::new(4, 4))).check_refused(
        "imagenet: {synsets: synsets.yaml}",
        "imagenet.synsets: expected the folder n09, got none of this name",
    );
    let flat = ImageFolder::new(&["a"]);
    let message = flat.try_open("imagenet: {}").err().unwrap();
    assert!(message.ends_with(": expected folders as classes, got none"), "{message}");
}

// ---- CelebA-HQ -----------------------------------------------------------------------------------------------------

#[test]
fn arrays_are_images_where_there_are_no_others() {
    let header = "{'descr': '|u1', 'fortran_order': False, 'shape': (1, 3, 2, 4), }\n";
    let array = [b"\x93NUMPY\x01\0", &[header.len() as u8, 0][..], header.as_bytes(), &[255; 24]].concat();
    let set =
        ImageFolder::new(&[]).with("images/imgHQ00000.npy", &array).with("images/a.txt", "no caption of it");
    let opened = set.open("");
    assert_eq!(opened.get(0, 0).unwrap().size, [3, 2, 4]);
    assert_eq!(opened.peek(0).unwrap().size, [4, 2]);
    assert_eq!(opened.get(0, 0).unwrap().image, [1.; 24]);
    let beside = ImageFolder::new(&["a"]).with("images/features.npy", &array);
    assert_eq!(beside.open("").len(), 1);
}
