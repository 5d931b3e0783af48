//! Real image sets: CIFAR-10, photographs, emoji, boxes, label maps, masks. Where they are absent (see
//! [`ldm_testing::shared_data`]) these tests report it and pass.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use ldm_data::{
    Crop, Dataset, DatasetConfig, ImagesConfig, Info, Loader, LoaderConfig, Position, StoredImages,
    TransformConfig, open_path, unreadable,
};

fn data(name: &str) -> Option<PathBuf> {
    let path = ldm_testing::shared_data().map(|folder| folder.join(name)).filter(|path| path.exists());
    if path.is_none() {
        println!("skipped: no {name} in the folder LDM_DATA");
    }
    path
}

#[test]
fn cifar10_from_its_gzipped_archive() {
    let Some(path) = data("cifar10/train.tar.gz") else { return };
    let val = path.with_file_name("val.txt");
    let config = ImagesConfig::new(
        path.to_str().unwrap(),
        TransformConfig { flip: 0.5, ..TransformConfig::square(32) },
    );
    let open = |config| StoredImages::open(config, Path::new("")).unwrap();
    let train = open(ImagesConfig { exclude: Some(val.clone()), ..config.clone() });
    let validation = open(ImagesConfig { split: Some(val), ..config });
    assert_eq!((train.len(), validation.len()), (45_000, 5_000));
    let classes = std::fs::read_to_string(path.with_file_name("classes.txt")).unwrap();
    assert_eq!(train.classes(), classes.lines().collect::<Vec<_>>());
    let info = Info::of(&validation, usize::MAX);
    assert_eq!(info.sizes, [([32, 32], 5000)]);
    assert!(info.classes.iter().all(|(_, count)| *count == 500) && info.unreadable.is_empty());
    let mut loader = Loader::new(Arc::new(train), LoaderConfig::new(64, 0), Position::default()).unwrap();
    let batch = loader.next().unwrap().unwrap();
    assert_eq!(batch.images.size(), [64, 3, 32, 32]);
    assert_eq!(batch.prompt.class.unwrap().size(), [64]);
}

#[test]
fn photographs_from_their_archive() {
    let Some(path) = data("photos/photos.tar") else { return };
    let transform = TransformConfig { crop: Crop::Random, ..TransformConfig::square(64) };
    let config = ImagesConfig {
        split: Some(path.with_file_name("val.txt")),
        ..ImagesConfig::new(path.to_str().unwrap(), transform)
    };
    let set = StoredImages::open(config, Path::new("")).unwrap();
    assert!(set.len() > 10 && set.classes() == ["cid22", "clic2025"], "{}", set.len());
    assert!(unreadable(&set).is_empty());
}

#[test]
fn emoji_with_their_captions() {
    let Some(path) = data("emoji/emoji128.tar") else { return };
    let set = open_path(&path, TransformConfig::square(32)).unwrap();
    assert_eq!((set.len(), set.classes().len()), (3218, 0));
    let info = Info::of(set.as_ref(), usize::MAX);
    assert_eq!((info.captioned, info.sizes), (3218, vec![([128, 128], 3218)]));
    let astronaut = (0..set.len())
        .map(|k| set.peek(k).unwrap())
        .find(|peek| peek.name.starts_with("1f469_1f3fd_200d_1f680"));
    assert_eq!(astronaut.unwrap().caption.as_deref(), Some("woman astronaut: medium skin tone"));
    let val = path.with_file_name("val.txt");
    let config = ImagesConfig {
        split: Some(val),
        ..ImagesConfig::new(path.to_str().unwrap(), TransformConfig::square(32))
    };
    assert_eq!(StoredImages::open(config, Path::new("")).unwrap().len(), 184);
}

/// A set of `params`, its paths in `folder`.
fn open_in(folder: &Path, params: &str) -> Arc<dyn Dataset> {
    let text = format!("target: images\nparams: {{{params}}}");
    let config: DatasetConfig = ldm_core::config::parse(&text, "set.yaml", &[]).unwrap();
    config.open(folder).unwrap()
}

#[test]
fn emoji_with_captions_of_a_table() {
    let Some(path) = data("emoji/emoji128.tar") else { return };
    let set = open_in(
        path.parent().unwrap(),
        "path: emoji128.tar, captions: {file: captions.tsv, name: key, caption: caption}",
    );
    let by_files = open_path(&path, TransformConfig::default()).unwrap();
    for index in (0..set.len()).step_by(100) {
        assert_eq!(set.peek(index).unwrap(), by_files.peek(index).unwrap());
    }
}

#[test]
fn images_with_boxes_and_captions() {
    let Some(path) = data("boxes/coco_mini_images.tar") else { return };
    let set = open_in(
        path.parent().unwrap(),
        "path: coco_mini_images.tar, boxes: {annotations: coco_mini_train.json, encode_crop: true}, \
         captions: {file: coco_mini_captions.json, missing: skip}, transform: {size: 64, crop: random, flip: 0.5}",
    );
    assert_eq!((set.len(), set.box_classes().len(), &set.box_classes()[1][..]), (40, 80, "traffic light"));
    let batch =
        Loader::new(set, LoaderConfig::new(8, 0), Position::default()).unwrap().next().unwrap().unwrap();
    assert_eq!(batch.prompt.crops.as_ref(), Some(&batch.crops));
    let layout = batch.prompt.layout.unwrap();
    assert!(layout.iter().all(|boxes| boxes.len() <= 30) && layout.iter().flatten().count() > 16);
    let all = open_in(
        path.parent().unwrap(),
        "path: aquarium_images.tar, boxes: {annotations: aquarium_train.json}",
    );
    assert_eq!((all.len(), all.box_classes().len()), (395, 7));
}

#[test]
fn images_with_label_maps() {
    let Some(path) = data("segmentation/camvid_val.tar") else { return };
    let set = open_in(
        path.parent().unwrap(),
        "path: camvid_val.tar, classes: none, task: {target: semantic}, transform: {size: 64, crop: random}, \
         label_maps: {files: {folder: labels}, classes_file: camvid_classes.json}",
    );
    assert_eq!((set.len(), &set.label_classes()[3][..]), (101, "Road"));
    let batch =
        Loader::new(set, LoaderConfig::new(8, 0), Position::default()).unwrap().next().unwrap().unwrap();
    assert_eq!(batch.prompt.mask.unwrap().size(), [8, 12, 64, 64]);
    // A road in front of the car, in every image.
    let below = batch.label_map.unwrap().narrow(1, 56, 8).eq(3).to_kind(tch::Kind::Float);
    assert!(below.mean(tch::Kind::Float).double_value(&[]) > 0.5);
}

#[test]
fn example_masks_of_the_reference() {
    let Some(path) = data("photos/inpainting.tar") else { return };
    let set = open_in(
        path.parent().unwrap(),
        "path: inpainting.tar, classes: none, \
         task: {target: inpainting, params: {masks: {target: files, params: {suffix: _mask}}}}",
    );
    assert_eq!(set.len(), 7);
    let config = LoaderConfig::new(7, 0);
    let batch = Loader::one_pass(set, config).unwrap().next().unwrap().unwrap();
    let mask = batch.prompt.mask.unwrap();
    assert_eq!(mask.size(), [7, 1, 512, 512]);
    let shares =
        Vec::<f64>::try_from(mask.mean_dim([1i64, 2, 3].as_slice(), false, tch::Kind::Double)).unwrap();
    assert!(shares.iter().all(|share| (0.005..0.5).contains(share)), "{shares:?}");
}
