//! Stored images: the same dataset from a folder, a tar and a gzipped tar; their sidecar files; their errors.

use std::fs;
use std::io::{Cursor, Write};
use std::path::Path;
use std::sync::Arc;

use image::{ImageFormat, Rgb, RgbImage};
use ldm_core::Result;
use ldm_data::{
    CaptionSource, ClassSource, Crop, Dataset, DatasetConfig, ImagesConfig, Info, Loader, LoaderConfig,
    StoredImages, TransformConfig, open_path, unreadable,
};
use tempfile::TempDir;

type Files = Vec<(String, Vec<u8>)>;

fn image(number: usize) -> Vec<u8> {
    let image = RgbImage::from_fn(12, 10, |x, y| Rgb([number as u8, (x * 20) as u8, (y * 20) as u8]));
    let mut bytes = Cursor::new(Vec::new());
    image.write_to(&mut bytes, ImageFormat::Png).unwrap();
    bytes.into_inner()
}

fn file(name: &str, content: impl Into<Vec<u8>>) -> (String, Vec<u8>) {
    (name.to_owned(), content.into())
}

fn cats_and_dogs() -> Files {
    (0..6).map(|k| file(&format!("{}/{k}.png", if k % 3 == 0 { "dog" } else { "cat" }), image(k))).collect()
}

fn write_folder(root: &Path, files: &Files) {
    for (name, bytes) in files {
        let path = root.join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, bytes).unwrap();
    }
}

fn tar(files: &Files) -> Vec<u8> {
    let mut archive = tar::Builder::new(Vec::new());
    for (name, bytes) in files {
        let mut header = tar::Header::new_gnu();
        header.set_size(bytes.len() as u64);
        header.set_mode(0o644);
        archive.append_data(&mut header, name, &bytes[..]).unwrap();
    }
    archive.into_inner().unwrap()
}

fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    gzip.write_all(bytes).unwrap();
    gzip.finish().unwrap()
}

fn config(path: &Path) -> ImagesConfig {
    ImagesConfig::new(path.to_str().unwrap(), TransformConfig::square(8))
}

fn open(config: ImagesConfig) -> Result<StoredImages> {
    StoredImages::open(config, Path::new(""))
}

/// A set of these files in its own folder.
fn folder(files: &Files) -> (TempDir, ImagesConfig) {
    let root = tempfile::tempdir().unwrap();
    write_folder(root.path(), files);
    let config = config(root.path());
    (root, config)
}

#[track_caller]
fn check_refused(files: &Files, change: impl FnOnce(&mut ImagesConfig), expected: &str) {
    let (root, mut config) = folder(files);
    change(&mut config);
    let message = open(config).unwrap_err().to_string();
    let message = message.replace(root.path().to_str().unwrap(), "SET");
    assert_eq!(message, expected);
}

#[test]
fn a_folder_a_tar_and_a_gzipped_tar_are_one_set() {
    let root = tempfile::tempdir().unwrap();
    let mut files = cats_and_dogs();
    write_folder(&root.path().join("set"), &files);
    files.reverse();
    fs::write(root.path().join("set.tar"), tar(&files)).unwrap();
    fs::write(root.path().join("set.tgz"), gzip(&tar(&files))).unwrap();
    fs::write(root.path().join("no-ending"), gzip(&tar(&files))).unwrap();
    let config = TransformConfig { crop: Crop::Random, flip: 0.5, ..TransformConfig::square(8) };
    let sets: Vec<_> = ["set", "set.tar", "set.tgz", "no-ending"]
        .iter()
        .map(|name| open_path(&root.path().join(name), config.clone()).unwrap())
        .collect();
    assert_eq!(sets[0].len(), 6);
    assert_eq!(sets[0].classes(), ["cat", "dog"]);
    for set in &sets {
        assert_eq!(set.fingerprint(), sets[0].fingerprint());
        for index in 0..6 {
            assert_eq!(set.get(index, 9).unwrap(), sets[0].get(index, 9).unwrap());
        }
    }
    let example = sets[0].get(4, 0).unwrap();
    assert_eq!((example.name.as_str(), example.class, example.size), ("dog/0.png", Some(1), [3, 8, 8]));
}

#[test]
fn tars_in_a_tar_are_folders_of_classes() {
    // As ILSVRC2012_img_train.tar, which has a tar for each synset.
    let root = tempfile::tempdir().unwrap();
    let files = cats_and_dogs();
    write_folder(&root.path().join("set"), &files);
    let inner = |class: &str| {
        let folder = format!("{class}/");
        let files: Vec<_> = files
            .iter()
            .filter_map(|(name, bytes)| Some((name.strip_prefix(&folder)?.to_owned(), bytes.clone())))
            .collect();
        (format!("{class}.tar"), tar(&files))
    };
    let [cats, dogs] = ["cat", "dog"].map(inner);
    fs::write(root.path().join("set.tar"), tar(&vec![cats.clone(), dogs.clone()])).unwrap();
    fs::write(root.path().join("set.tgz"), gzip(&tar(&vec![dogs.clone(), cats.clone()]))).unwrap();
    let open = |name: &str| open_path(&root.path().join(name), TransformConfig::square(8));
    let folder = open("set").unwrap();
    for name in ["set.tar", "set.tgz"] {
        let set = open(name).unwrap();
        assert_eq!((set.classes(), set.fingerprint()), (folder.classes(), folder.fingerprint()));
        for index in 0..6 {
            assert_eq!(set.get(index, 9).unwrap(), folder.get(index, 9).unwrap());
        }
    }
    // A damaged one is named.
    let (name, mut bytes) = cats;
    bytes[148..156].fill(b'7'); // the checksum of the first header
    fs::write(root.path().join("bad.tar"), tar(&vec![(name, bytes), dogs])).unwrap();
    let error = open("bad.tar").err().unwrap().to_string();
    assert!(error.contains("bad.tar: expected a tar archive, got `cat.tar`: "), "{error}");
}

#[test]
fn get_is_pure_and_the_seed_decides() {
    let (_root, config) = folder(&cats_and_dogs());
    let transform =
        TransformConfig { crop: Crop::Random, resize: ldm_data::Resize::None, ..TransformConfig::square(4) };
    let set = open(ImagesConfig { transform, ..config }).unwrap();
    assert_eq!(set.get(2, 7).unwrap(), set.get(2, 7).unwrap());
    assert!((0..20).any(|seed| set.get(2, seed).unwrap() != set.get(2, 7).unwrap()));
}

#[test]
fn fingerprints_follow_the_images_and_their_preparation() {
    let of = |files: &Files, size| {
        let (_root, config) = folder(files);
        open(ImagesConfig { transform: TransformConfig::square(size), ..config }).unwrap().fingerprint()
    };
    let files = cats_and_dogs();
    assert_eq!(of(&files, 8), of(&files, 8));
    assert_ne!(of(&files, 8), of(&files, 4));
    assert_ne!(of(&files, 8), of(&files[1..].to_vec(), 8));
}

#[test]
fn shards_give_captions_and_classes() {
    let root = tempfile::tempdir().unwrap();
    for shard in 0..3 {
        let files: Files = (0..2)
            .flat_map(|k| {
                let key = format!("{shard}{k}");
                [
                    file(&format!("{key}.png"), image(k)),
                    file(&format!("{key}.txt"), format!("image {k} of shard {shard}\n")),
                    file(&format!("{key}.cls"), format!("{}", shard * 2)),
                ]
            })
            .collect();
        fs::write(root.path().join(format!("s-{shard:03}.tar")), tar(&files)).unwrap();
    }
    let set = open(config(&root.path().join("s-{000..002}.tar"))).unwrap();
    assert_eq!(set.len(), 6);
    assert_eq!(set.classes(), ["0", "1", "2", "3", "4"]);
    let example = set.get(3, 0).unwrap();
    assert_eq!(example.caption.as_deref(), Some("image 1 of shard 1"));
    assert_eq!((example.class, example.name.as_str()), (Some(2), "11.png"));
    let two = ["s-000.tar", "s-002.tar"].map(|name| root.path().join(name).to_str().unwrap().to_owned());
    assert_eq!(open(ImagesConfig { path: two.to_vec(), ..config(root.path()) }).unwrap().len(), 4);
}

#[test]
fn json_gives_captions_and_classes() {
    let files: Files = (0..2)
        .flat_map(|k| {
            let json = format!(r#"{{"caption": ["one {k}", "two {k}"], "label": "kind{k}", "width": 12}}"#);
            [file(&format!("{k}.png"), image(k)), file(&format!("{k}.json"), json)]
        })
        .collect();
    let (_root, config) = folder(&files);
    let set = open(config.clone()).unwrap();
    assert_eq!(set.classes(), ["kind0", "kind1"]);
    let captions: std::collections::BTreeSet<_> =
        (0..20).map(|seed| set.get(1, seed).unwrap().caption.unwrap()).collect();
    assert_eq!(captions.into_iter().collect::<Vec<_>>(), ["one 1", "two 1"]);
    let bare =
        open(ImagesConfig { captions: CaptionSource::None, classes: ClassSource::None, ..config }).unwrap();
    let example = bare.get(1, 0).unwrap();
    assert_eq!((example.caption, example.class), (None, None));
}

#[test]
fn splits_keep_the_numbers_of_classes() {
    let mut files = cats_and_dogs();
    files.push(file("ant/0.png", image(9)));
    let (root, config) = folder(&files);
    let list = root.path().join("val.list");
    fs::write(&list, "dog/0.png\n\ndog/3\n").unwrap();
    let split = open(ImagesConfig { split: Some(list.clone()), ..config.clone() }).unwrap();
    let rest = open(ImagesConfig { exclude: Some(list.clone()), ..config.clone() }).unwrap();
    assert_eq!((split.len(), rest.len()), (2, 5));
    assert_eq!(split.classes(), rest.classes());
    assert_eq!(split.get(0, 0).unwrap().class, Some(2));
    assert_ne!(split.fingerprint(), rest.fingerprint());
    fs::write(&list, "dog/0.png\ndog/9.png\n").unwrap();
    let message = open(ImagesConfig { split: Some(list), ..config }).unwrap_err().to_string();
    assert!(
        message.ends_with("val.list: expected names of images, got 1 that are not there, e.g. dog/9.png"),
        "{message}"
    );
}

#[test]
fn paths_are_relative_to_the_config() {
    let root = tempfile::tempdir().unwrap();
    write_folder(&root.path().join("set"), &cats_and_dogs());
    fs::write(root.path().join("val.list"), "dog/0.png").unwrap();
    let text = "target: images\nparams: {path: set, split: val.list, transform: {size: 8}}";
    let config: DatasetConfig = ldm_core::config::parse(text, "data.yaml", &[]).unwrap();
    assert_eq!(config.open(root.path()).unwrap().len(), 1);
}

#[test]
fn missing_labels_are_refused() {
    let one = |name: &str, content: &str| file(name, content);
    check_refused(
        &vec![one("readme.md", "hello")],
        |_| (),
        "SET: expected images, got no file that ends in png, jpg, jpeg, webp, bmp, gif, tif, tiff",
    );
    let mut some = cats_and_dogs();
    some.push(file("6.png", image(6)));
    check_refused(
        &some,
        |_| (),
        "SET: expected all images in class folders, got 1 of 7 outside, e.g. 6.png; try moving them, or classes: none",
    );
    let flat: Files = (0..3).map(|k| file(&format!("{k}.png"), image(k))).collect();
    check_refused(
        &flat,
        |config| config.classes = ClassSource::Folders,
        "SET: expected folders as classes, got none",
    );
    check_refused(
        &flat,
        |config| config.classes = ClassSource::Files,
        "SET: expected a class in .cls or .json files next to the images, got none",
    );
    let with = |files: &[(String, Vec<u8>)]| [&flat[..], files].concat();
    check_refused(
        &with(&[one("0.txt", "a dog")]),
        |_| (),
        "SET: expected a caption next to every image, got none for 2 of 3, e.g. 1.png; try adding them, or captions: none",
    );
    check_refused(
        &with(&[one("0.cls", "1"), one("1.cls", "1")]),
        |_| (),
        "SET: expected a class next to every image, got none for 1 of 3, e.g. 2.png; try classes: folders or none",
    );
    check_refused(&with(&[one("0.cls", " ")]), |_| (), "SET/0.cls: expected a class, got an empty file");
    for (class, expected) in [
        ("cat", "SET/2.cls: expected a number as class, as in SET/0.cls, got `cat`"),
        ("3.5", "SET/2.cls: expected a number as class, as in SET/0.cls, got `3.5`"),
        ("99999999999999999999", "SET/2.cls: expected a class within 0 to 1048575, got 99999999999999999999"),
    ] {
        check_refused(
            &with(&[one("0.cls", "0"), one("1.json", r#"{"class": "11"}"#), one("2.cls", class)]),
            |_| (),
            expected,
        );
    }
    let names = with(&[one("list", "0\n1\n2\n")]);
    check_refused(
        &names,
        |config| config.exclude = Some(Path::new(&config.path[0]).join("list")),
        "SET: expected images, got none after `split` and `exclude`",
    );
}

#[test]
fn damaged_archives_are_refused() {
    let root = tempfile::tempdir().unwrap();
    let check = |name: &str, bytes: &[u8], expected: &str| {
        let path = root.path().join(name);
        fs::write(&path, bytes).unwrap();
        let message = open(config(&path)).unwrap_err().to_string();
        let message = message.replace(root.path().to_str().unwrap(), "");
        assert!(message.starts_with(expected), "{message}");
    };
    let whole = tar(&cats_and_dogs());
    check("cut.tar", &whole[..600], "/cut.tar: expected a whole archive, got 600 bytes of at least ");
    check(
        "between.tar",
        &whole[..1024],
        "/between.tar: expected a whole archive, got no end-of-archive mark at byte 1024",
    );
    check("header.tar", &whole[..1300], "/header.tar: expected a tar archive, got ");
    check("cut.tgz", &gzip(&whole)[..400], "/cut.tgz: expected whole gzip data, got ");
    check(
        "text.tar",
        &b"not an archive at all, only words. ".repeat(40),
        "/text.tar: expected a folder, a .tar, a .tar.gz or a .zip of images, got a file of text",
    );
    check("empty.tar", b"", "/empty.tar: expected a whole archive, got no end-of-archive mark at byte 0");
    check("bare.tar", &tar(&Vec::new()), "/bare.tar: expected images, got no file");
    let missing = open(config(&root.path().join("none.tar"))).unwrap_err().to_string();
    assert!(missing.contains("none.tar: No such file or directory"), "{missing}");
}

fn with_bad_images() -> (TempDir, ImagesConfig) {
    let mut files = cats_and_dogs();
    files.push(file("cat/empty.png", ""));
    files.push(file("cat/text.jpg", "this is a letter, not an image"));
    files.push(file("dog/cut.png", &image(3)[..60]));
    files.push(file("dog/.hidden.png", ""));
    folder(&files)
}

#[test]
fn bad_images_are_named_and_the_rest_is_used() {
    let (root, config) = with_bad_images();
    let set = open(config).unwrap();
    assert_eq!(set.len(), 9);
    let root = format!("{}/", root.path().to_str().unwrap());
    let wrong: Vec<_> = unreadable(&set).iter().map(|error| error.to_string().replace(&root, "")).collect();
    assert_eq!(wrong.len(), 3);
    assert_eq!(wrong[0], "cat/empty.png: expected an image, got an empty file");
    assert!(
        wrong[1].starts_with("cat/text.jpg: expected an image, got first bytes that are none of png, "),
        "{}",
        wrong[1]
    );
    assert!(wrong[2].starts_with("dog/cut.png: expected a readable image, got "), "{}", wrong[2]);
    let config = LoaderConfig { drop_last: false, ..LoaderConfig::new(4, 0) };
    let mut loader = Loader::one_pass(Arc::new(set), config).unwrap();
    let count: usize = loader.by_ref().map(|batch| batch.unwrap().names.len()).sum();
    assert_eq!((count, loader.skipped().len()), (6, 3));
}

#[test]
fn info_counts_images_and_classes() {
    let (_root, config) = with_bad_images();
    let set = open(config).unwrap();
    let info = Info::of(&set, 100);
    assert_eq!((info.count, info.peeked, info.captioned), (9, 9, 0));
    assert_eq!(info.classes, [("cat".to_owned(), 4), ("dog".to_owned(), 3)]); // the head of the truncated one is whole
    assert_eq!(info.sizes, [([12, 10], 7)]);
    assert_eq!(info.unreadable.len(), 2);
    assert_eq!(info.fingerprint, set.fingerprint());
    assert_eq!(Info::of(&set, 3).peeked, 3);
}

#[test]
fn an_image_too_small_to_crop_is_named() {
    let (_root, config) = folder(&cats_and_dogs());
    let transform = TransformConfig { resize: ldm_data::Resize::None, ..TransformConfig::square(16) };
    let set = open(ImagesConfig { transform, ..config }).unwrap();
    let message = set.get(0, 0).unwrap_err().to_string();
    assert!(message.ends_with("cat/1.png: expected at least 16x16 for the crop, got 12x10"), "{message}");
}

#[test]
fn the_alpha_channel_is_read_and_placed_as_the_image() {
    let folder = tempfile::tempdir().unwrap();
    let rgba = image::RgbaImage::from_fn(16, 16, |x, y| image::Rgba([(x * 16) as u8, 7, 9, (y * 16) as u8]));
    rgba.save(folder.path().join("a.png")).unwrap();
    fs::write(folder.path().join("b.png"), image(1)).unwrap();
    let with = ImagesConfig { alpha: true, ..config(folder.path()) };
    let set = StoredImages::open(with, Path::new("")).unwrap();
    let plain = StoredImages::open(config(folder.path()), Path::new("")).unwrap();
    assert_ne!(set.fingerprint(), plain.fingerprint());
    let (example, rgb) = (set.get(0, 0).unwrap(), plain.get(0, 0).unwrap());
    assert_eq!((example.size, rgb.size), ([4, 8, 8], [3, 8, 8]));
    let (color, alpha) = example.image.split_at(3 * 64);
    assert_eq!(color, rgb.image);
    // The red of the image runs along columns as the alpha channel along rows.
    let red = |row: usize, column: usize| rgb.image[8 * row + column];
    assert!((0..64).all(|at| alpha[at] == red(at % 8, at / 8)), "{alpha:?}");
    assert!(set.get(1, 0).unwrap().image[3 * 64..].iter().all(|value| *value == 1.), "opaque");
    let task = "{path: x, alpha: true, transform: {size: 8}, task: {target: super_resolution, params: {degradation: pil_bicubic}}}";
    let text = format!("{{target: images, params: {task}}}")
        .replace("path: x", &format!("path: {}", folder.path().display()));
    let config: DatasetConfig = ldm_core::config::parse(&text, "data.yaml", &[]).unwrap();
    let error = config.open(Path::new("")).err().unwrap().to_string();
    assert!(error.contains("alpha: expected false with a task"), "{error}");
}
