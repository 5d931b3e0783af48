//! Folders and archives with entries that are no plain files.

use std::fs;
use std::io::{Cursor, Write};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::symlink;
use std::os::unix::net::UnixListener;
use std::path::Path;
use std::sync::Arc;

use image::{Rgb, RgbImage};
use ldm_data::{
    ClassSource, Dataset, ImagesConfig, Loader, LoaderConfig, StoredImages, TransformConfig, first_readable,
    none_readable, open_path, refuse_passed_over,
};
use tar::{EntryType, Header};
use zip::write::SimpleFileOptions;

use crate::image_folder::png;

/// A PNG whose red is `number`.
fn numbered(number: u8) -> Vec<u8> {
    png(RgbImage::from_pixel(16, 16, Rgb([number, 0, 0])))
}

fn open(path: &Path) -> ldm_core::Result<StoredImages> {
    let config = ImagesConfig {
        classes: ClassSource::None,
        ..ImagesConfig::new(path.to_str().unwrap(), TransformConfig::default())
    };
    StoredImages::open(config, Path::new(""))
}

/// Names of the images and their numbers.
fn images(set: &dyn Dataset) -> Vec<(String, u8)> {
    let one = |index| {
        let example = set.get(index, 0).unwrap();
        (example.name, (f32::midpoint(example.image[0], 1.) * 255.).round() as u8)
    };
    (0..set.len()).map(one).collect()
}

#[track_caller]
fn check_images(path: &Path, expected: &[(&str, u8)]) {
    let set = open(path).unwrap();
    let expected: Vec<_> = expected.iter().map(|&(name, number)| (name.to_owned(), number)).collect();
    assert_eq!(images(&set), expected);
}

/// Entries that were passed over, without the path of the set.
fn passed_over(path: &Path) -> Vec<String> {
    let root = format!("{}/", path.display());
    open(path).unwrap().passed_over().iter().map(|entry| entry.replace(&root, "")).collect()
}

// ---- Folders -------------------------------------------------------------------------------------------------------

#[test]
fn odd_entries_of_a_folder_are_named_and_passed_over() {
    let root = tempfile::tempdir().unwrap();
    let path = |name: &str| root.path().join(name);
    fs::create_dir(path("more")).unwrap();
    fs::write(path("a.png"), numbered(1)).unwrap();
    fs::write(path("more/b.png"), numbered(2)).unwrap();
    symlink("/nonexistent", path("dangling.png")).unwrap();
    symlink("circle", path("circle")).unwrap();
    symlink("..", path("more/up")).unwrap();
    symlink("more", path("again")).unwrap();
    symlink("/dev/zero", path("zero.png")).unwrap();
    fs::write(root.path().join(std::ffi::OsStr::from_bytes(b"caf\xe9.png")), numbered(3)).unwrap();
    let status = std::process::Command::new("mkfifo").arg(path("fifo.png")).status().unwrap();
    assert!(status.success());
    let _socket = UnixListener::bind(path("socket.png")).unwrap();
    symlink("/nonexistent", path(".hidden")).unwrap();

    let set = open(root.path()).unwrap();
    assert_eq!(set.len(), 3, "a.png, again/b.png, more/b.png");
    let found = passed_over(root.path());
    let expected = [
        "again/up: expected a link to another folder, got one that it is in",
        "caf\u{fffd}.png: expected a name in UTF-8, got another encoding",
        "circle: expected a link to a file or a folder, got ",
        "dangling.png: expected a link to a file or a folder, got No such file or directory",
        "fifo.png: expected a file or a folder, got a FIFO",
        "more/up: expected a link to another folder, got one that it is in",
        "socket.png: expected a file or a folder, got a socket",
        "zero.png: expected a file or a folder, got a device",
    ];
    assert_eq!(found.len(), expected.len(), "{found:#?}");
    for (found, expected) in found.iter().zip(expected) {
        assert!(found.starts_with(expected), "{found}");
    }
    let message = refuse_passed_over(&set).unwrap_err().to_string();
    assert!(message.contains(": expected files and folders, got 8 other entries, e.g. "), "{message}");
    let strict = LoaderConfig { strict: true, ..LoaderConfig::new(1, 0) };
    assert_eq!(Loader::one_pass(Arc::new(set), strict).unwrap_err().to_string(), message);
}

#[test]
fn a_folder_without_an_image_names_what_was_passed_over() {
    let root = tempfile::tempdir().unwrap();
    symlink("/nonexistent", root.path().join("a.png")).unwrap();
    let message = open(root.path()).unwrap_err().to_string();
    assert!(
        message.contains(", and passed over ") && message.contains("a.png: expected a link"),
        "{message}"
    );
}

#[test]
fn no_readable_image_is_an_error_with_the_reason() {
    let root = tempfile::tempdir().unwrap();
    for name in ["a.png", "b.png"] {
        fs::write(root.path().join(name), "junk").unwrap();
    }
    let set = open(root.path()).unwrap();
    let message = first_readable(&set, 0).unwrap_err().to_string();
    let expected = format!(
        "{0}: expected readable images, got none of 2, e.g. {0}/a.png: expected an image, got first bytes that",
        root.path().display()
    );
    assert!(message.starts_with(&expected), "{message}");
    assert!(none_readable(&set, None).to_string().ends_with("got none of 2"));
    fs::write(root.path().join("b.png"), numbered(1)).unwrap();
    first_readable(&set, 0).unwrap();
}

#[test]
fn paths_that_are_no_image_set_are_refused_in_a_sentence() {
    let root = tempfile::tempdir().unwrap();
    let check = |name: &str, expected: &str| {
        let path = root.path().join(name);
        let message = open_path(&path, TransformConfig::default()).err().unwrap().to_string();
        assert_eq!(message, format!("{}: {expected}", path.display()));
    };
    fs::write(root.path().join("photo.jpg"), numbered(1)).unwrap();
    let archive = "expected a folder, a .tar, a .tar.gz or a .zip of images, got ";
    check("photo.jpg", &format!("{archive}one image; try the folder that holds it"));
    fs::write(root.path().join("list.txt"), "a.png\n").unwrap();
    check("list.txt", &format!("{archive}a file of text"));
    let fifo = root.path().join("fifo");
    assert!(std::process::Command::new("mkfifo").arg(fifo).status().unwrap().success());
    check("fifo", "expected a folder or an archive of images, got a FIFO");
    let message =
        |path: &str| open_path(Path::new(path), TransformConfig::default()).err().unwrap().to_string();
    assert_eq!(
        message("https://example.org/photos.tar"),
        "https://example.org/photos.tar: expected a path, got a URL; try downloading it first"
    );
    assert!(
        message("~/photos").starts_with("~/photos: expected a path, got `~`, which only a shell replaces")
    );
    assert!(message("photos-{a,b}").starts_with("path: expected {from..to} with two numbers"));
    let braces = root.path().join("photos {2024}");
    fs::create_dir(&braces).unwrap();
    fs::write(braces.join("a.png"), numbered(1)).unwrap();
    check_images(&braces, &[("a.png", 1)]);
}

// ---- Tar -----------------------------------------------------------------------------------------------------------

/// Appends a member with any bytes as its name.
fn append(archive: &mut tar::Builder<Vec<u8>>, kind: EntryType, name: &[u8], target: &str, content: &[u8]) {
    let mut header = Header::new_gnu();
    header.as_old_mut().name[..name.len()].copy_from_slice(name);
    header.set_entry_type(kind);
    header.set_mode(0o644);
    header.set_size(content.len() as u64);
    if !target.is_empty() {
        header.set_link_name_literal(target).unwrap();
    }
    header.set_cksum();
    archive.append(&header, content).unwrap();
}

#[test]
fn links_are_followed_inside_a_tar() {
    let root = tempfile::tempdir().unwrap();
    let path = root.path().join("set.tar");
    let mut archive = tar::Builder::new(Vec::new());
    append(&mut archive, EntryType::Symlink, b"first.png", "d/a.png", b"");
    append(&mut archive, EntryType::Regular, b"d/a.png", "", &numbered(1));
    append(&mut archive, EntryType::Link, b"d/hard.png", "d/a.png", b"");
    append(&mut archive, EntryType::Symlink, b"d/soft.png", "../d/./a.png", b"");
    append(&mut archive, EntryType::Symlink, b"e", "d", b"");
    append(&mut archive, EntryType::Symlink, b"f.png", "e/hard.png", b"");
    append(&mut archive, EntryType::Symlink, b"out.png", "/etc/passwd", b"");
    append(&mut archive, EntryType::Symlink, b"up.png", "../a.png", b"");
    append(&mut archive, EntryType::Symlink, b"gone.png", "nowhere.png", b"");
    append(&mut archive, EntryType::Regular, b"../evil.png", "", &numbered(2));
    append(&mut archive, EntryType::Symlink, b"d/../evil.png", "d/a.png", b"");
    append(&mut archive, EntryType::Symlink, b"x.png", "y.png", b"");
    append(&mut archive, EntryType::Symlink, b"y.png", "x.png", b"");
    append(&mut archive, EntryType::Fifo, b"fifo.png", "", b"");
    fs::write(&path, archive.into_inner().unwrap()).unwrap();
    let set = open(&path).unwrap();
    let names: Vec<_> = images(&set).into_iter().map(|(name, number)| format!("{name} {number}")).collect();
    assert_eq!(names, ["d/a.png 1", "d/hard.png 1", "d/soft.png 1", "e/a.png 1", "f.png 1", "first.png 1"]);
    let root = format!("{}/", path.display());
    let found: Vec<_> = set.passed_over().iter().map(|entry| entry.replace(&root, "")).collect();
    assert_eq!(
        found,
        [
            "../evil.png: expected a name inside the archive, got one with `..`",
            "d/../evil.png: expected a name inside the archive, got one with `..`",
            "fifo.png: expected a file or a folder, got a FIFO",
            "gone.png: expected a link to a member, got nowhere.png, that the archive lacks",
            "out.png: expected a link inside the archive, got one that leaves it",
            "up.png: expected a link inside the archive, got one that leaves it",
            "x.png: expected a link to a file, got one that leads to itself",
            "y.png: expected a link to a file, got one that leads to itself",
        ]
    );
}

#[test]
fn names_in_other_encodings_stay_apart_in_a_tar() {
    let root = tempfile::tempdir().unwrap();
    let path = root.path().join("set.tar");
    let mut archive = tar::Builder::new(Vec::new());
    append(&mut archive, EntryType::Regular, b"caf\xe8.png", "", &numbered(1));
    append(&mut archive, EntryType::Regular, b"caf\xe9.png", "", &numbered(2));
    append(&mut archive, EntryType::Regular, b"./a/./b.png", "", &numbered(3));
    fs::write(&path, archive.into_inner().unwrap()).unwrap();
    let set = open(&path).unwrap();
    let expected = [("a/b.png", 3), ("caf\\xe8.png", 1), ("caf\\xe9.png", 2)];
    assert_eq!(images(&set), expected.map(|(name, number)| (name.to_owned(), number)));
}

/// The bytes of an image followed by zeros up to `size`, as a sparse file: two pieces with a hole between them.
fn holes(image: &[u8]) -> (Vec<(u64, u64)>, Vec<u8>, u64) {
    // An image reader stops at the end of the image: the hole and the second piece come after it.
    let (first, second) = (image.len().next_multiple_of(512) as u64, 512);
    let mut data = image.to_vec();
    data.resize(first as usize, 0);
    data.extend([7; 512]);
    (vec![(0, first), (1 << 20, second)], data, (1 << 20) + second)
}

#[test]
fn sparse_files_of_gnu_tar_are_read() {
    let root = tempfile::tempdir().unwrap();
    let path = root.path().join("set.tar");
    let (map, data, size) = holes(&numbered(5));
    let mut header = Header::new_gnu();
    header.set_path("old.png").unwrap();
    header.set_entry_type(EntryType::GNUSparse);
    header.set_mode(0o644);
    header.set_size(data.len() as u64);
    let gnu = header.as_gnu_mut().unwrap();
    gnu.set_real_size(size);
    for (block, &(at, length)) in gnu.sparse.iter_mut().zip(&map) {
        block.set_offset(at);
        block.set_length(length);
    }
    header.set_cksum();
    let mut archive = tar::Builder::new(Vec::new());
    archive.append(&header, &data[..]).unwrap();

    // Format 1.0: the map is text before the data. Format 0.1: it is in the pax header.
    let text: Vec<String> =
        map.iter().flat_map(|(at, length)| [at.to_string(), length.to_string()]).collect();
    let mut with_map = format!("{}\n{}\n", map.len(), text.join("\n")).into_bytes();
    with_map.resize(512, 0);
    with_map.extend(&data);
    let size = size.to_string();
    for (name, content, keys) in [
        ("new.png", &with_map, vec![("major", "1"), ("minor", "0"), ("realsize", &*size)]),
        ("pax.png", &data, vec![("size", &*size), ("numblocks", "2"), ("map", &*text.join(","))]),
    ] {
        let keys: Vec<(String, &str)> = keys
            .into_iter()
            .chain([("name", name)])
            .map(|(key, value)| (format!("GNU.sparse.{key}"), value))
            .collect();
        archive.append_pax_extensions(keys.iter().map(|(key, value)| (&**key, value.as_bytes()))).unwrap();
        append(&mut archive, EntryType::Regular, b"GNUSparseFile.0", "", content);
    }
    append(&mut archive, EntryType::Regular, b"plain.png", "", &numbered(6));
    fs::write(&path, archive.into_inner().unwrap()).unwrap();
    check_images(&path, &[("new.png", 5), ("old.png", 5), ("pax.png", 5), ("plain.png", 6)]);
}

#[test]
fn a_packed_size_does_not_decide_the_memory() {
    let root = tempfile::tempdir().unwrap();
    let path = root.path().join("set.tar");
    let mut header = Header::new_gnu();
    header.set_path("huge.png").unwrap();
    header.set_entry_type(EntryType::GNUSparse);
    header.set_size(512);
    let gnu = header.as_gnu_mut().unwrap();
    gnu.set_real_size(1 << 40);
    gnu.sparse[0].set_offset((1 << 40) - 512);
    gnu.sparse[0].set_length(512);
    header.set_cksum();
    let mut archive = tar::Builder::new(Vec::new());
    archive.append(&header, &[0; 512][..]).unwrap();
    fs::write(&path, archive.into_inner().unwrap()).unwrap();
    let message = open(&path).unwrap().get(0, 0).unwrap_err().to_string();
    let expected = "huge.png: expected at most 67110912 bytes of a file that takes 512 in the archive, got 1099511627776";
    assert!(message.contains(expected), "{message}");
}

// ---- Zip -----------------------------------------------------------------------------------------------------------

#[test]
fn a_zip_is_a_set() {
    let root = tempfile::tempdir().unwrap();
    let path = root.path().join("set.zip");
    let mut archive = zip::ZipWriter::new(Cursor::new(Vec::new()));
    for (name, number, method) in [
        ("deflated.png", 1, zip::CompressionMethod::Deflated),
        ("stored.png", 2, zip::CompressionMethod::Stored),
        ("__MACOSX/._stored.png", 3, zip::CompressionMethod::Stored),
        ("../evil.png", 4, zip::CompressionMethod::Stored),
    ] {
        archive.start_file(name, SimpleFileOptions::default().compression_method(method)).unwrap();
        archive.write_all(&numbered(number)).unwrap();
    }
    archive.add_symlink("link.png", "stored.png", SimpleFileOptions::default()).unwrap();
    archive.add_symlink("out.png", "/etc/passwd", SimpleFileOptions::default()).unwrap();
    let whole = archive.finish().unwrap().into_inner();
    fs::write(&path, &whole).unwrap();
    check_images(&path, &[("deflated.png", 1), ("link.png", 2), ("stored.png", 2)]);
    let expected = [
        "../evil.png: expected a name inside the archive, got one with `..`",
        "out.png: expected a link inside the archive, got one that leaves it",
    ];
    assert_eq!(passed_over(&path), expected);
    fs::write(&path, &whole[..whole.len() - 30]).unwrap();
    let message = open(&path).unwrap_err().to_string();
    assert!(message.contains("set.zip: expected a zip, got "), "{message}");
}
