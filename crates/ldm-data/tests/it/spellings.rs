//! Text files of a data set in every spelling: encodings, line ends, endings, names.

use ldm_data::Dataset;

use crate::image_folder::ImageFolder;

fn captions(set: &dyn Dataset) -> Vec<String> {
    (0..set.len()).map(|index| set.get(index, 0).unwrap().caption.unwrap()).collect()
}

/// A text as Windows' programs save it: with a byte order mark and CRLF.
fn windows(text: &str) -> Vec<u8> {
    format!("\u{feff}{}", text.replace('\n', "\r\n")).into_bytes()
}

fn utf16(text: &str) -> Vec<u8> {
    std::iter::once(0xfeff).chain(text.encode_utf16()).flat_map(u16::to_le_bytes).collect()
}

#[test]
fn marks_and_line_ends_are_no_part_of_a_value() {
    for spell in [windows, utf16] {
        let set = ImageFolder::new(&["a", "b"])
            .with("images/a.txt", spell("a cat\n"))
            .with("images/b.txt", spell("\na dog\n\n"))
            .with("images/a.cls", spell("3\n"))
            .with("images/b.cls", "3\n");
        let opened = set.open("transform: {size: 8}");
        assert_eq!(captions(&*opened), ["a cat", "a dog"]);
        assert_eq!(opened.classes().len(), 4);
        assert_eq!(opened.get(0, 0).unwrap().class, Some(3));
        let set = ImageFolder::new(&["a", "b"])
            .with("images/a.json", spell(r#"{"caption": "a cat", "class": "x"}"#))
            .with("images/b.json", spell(r#"{"caption": "a dog", "class": "x"}"#));
        assert_eq!(captions(&*set.open("")), ["a cat", "a dog"]);
    }
}

#[test]
fn lists_of_captions_and_names_are_read_in_every_encoding() {
    for spell in [windows, utf16] {
        let set = ImageFolder::new(&["a", "b"])
            .with("bare.tsv", spell("a\tone\nb\ttwo\n"))
            .with("quoted.csv", spell("text,file_name\n\"one\",a.png\n\"two\",b.png\n"))
            .with(
                "lines.jsonl",
                spell(
                    "{\"file_name\": \"a\", \"text\": \"one\"}\n{\"file_name\": \"b\", \"text\": \"two\"}\n",
                ),
            )
            .with("map.json", spell(r#"{"a": "one", "b": "two"}"#))
            .with("split.txt", spell("a\nb\n"))
            .with("exclude.txt", spell("b\n"));
        for file in ["bare.tsv", "quoted.csv", "lines.jsonl", "map.json"] {
            assert_eq!(
                captions(&*set.open(&format!("captions: {{file: {file}}}"))),
                ["one", "two"],
                "{file}"
            );
        }
        assert_eq!(set.open("split: split.txt, exclude: exclude.txt").len(), 1);
    }
}

#[test]
fn other_encodings_are_refused_by_name() {
    let set = ImageFolder::new(&["a"])
        .with("list.tsv", b"a\tein K\xe4tzchen\n")
        .with("images/a.txt", b"a cat\nein K\xe4tzchen\n");
    set.check_refused(
        "captions: {file: list.tsv}",
        "ROOT/list.tsv: expected UTF-8 text, got the byte 0xe4 at line 1, byte 8; try saving it as UTF-8",
    );
    set.check_refused(
        "",
        "ROOT/images/a.txt: expected UTF-8 text, got the byte 0xe4 at line 2, byte 6; try saving it as UTF-8",
    );
}

#[test]
fn endings_of_sidecars_are_found_in_any_case() {
    let set = ImageFolder::new(&["a", "b"])
        .with("images/a.TXT", "one")
        .with("images/b.Txt", "two")
        .with("images/a.CLS", "0")
        .with("images/b.cls", "1");
    let opened = set.open("");
    assert_eq!(captions(&*opened), ["one", "two"]);
    assert_eq!(opened.get(1, 0).unwrap().class, Some(1));
    let set =
        ImageFolder::new(&["a"]).with("images/a.JSON", r#"{"caption": "one"}"#).with("list.TSV", "a\ttwo");
    assert_eq!(captions(&*set.open("")), ["one"]);
    assert_eq!(captions(&*set.open("captions: {file: list.TSV}")), ["two"]);
}

#[test]
fn names_are_found_composed_and_decomposed() {
    let set = ImageFolder::new(&["caf\u{e9}", "u\u{308}"])
        .with("images/cafe\u{301}.txt", "one")
        .with("images/\u{fc}.txt", "two")
        .with("list.tsv", "cafe\u{301}.png\tthree\n\u{fc}\tfour\n")
        .with("maps/cafe\u{301}.png", crate::image_folder::png(image::GrayImage::new(40, 30)))
        .with("maps/\u{fc}.png", crate::image_folder::png(image::GrayImage::new(40, 30)));
    let mut found = captions(&*set.open(""));
    found.sort();
    assert_eq!(found, ["one", "two"]);
    let mut found = captions(&*set.open("captions: {file: list.tsv}"));
    found.sort();
    assert_eq!(found, ["four", "three"]);
    let maps = set.open("captions: none, label_maps: {files: {path: maps}, n_labels: 2}");
    assert!((0..2).all(|index| maps.get(index, 0).unwrap().label_map.is_some()));
}

#[test]
fn lists_may_name_images_as_other_programs_do() {
    let set = ImageFolder::new(&["x/a", "y/a", "b"])
        .with("split.txt", "./x/a.png\n/data/images/y/a.png\n.\\b.png\n")
        .with("list.tsv", "x\\a.png\tone\nC:\\images\\y\\a.png\ttwo\n./b\tthree\n");
    assert_eq!(set.open("classes: none, split: split.txt").len(), 3);
    assert_eq!(captions(&*set.open("classes: none, captions: {file: list.tsv}")), ["three", "one", "two"]);
}

#[test]
fn captions_come_from_the_metadata_of_a_hugging_face_folder() {
    let lines =
        "{\"file_name\": \"a.png\", \"text\": \"one\"}\n{\"file_name\": \"x/b.png\", \"text\": \"two\"}\n";
    let set = ImageFolder::new(&["a", "x/b"]).with("images/metadata.jsonl", lines);
    assert_eq!(captions(&*set.open("classes: none")), ["one", "two"]);
    assert!(set.open("classes: none, captions: none").get(0, 0).unwrap().caption.is_none());
    let set = ImageFolder::new(&["train/a", "test/a"])
        .with("images/train/metadata.csv", "caption,file_name\n\"one, with a comma\",a.png\n")
        .with("images/test/metadata.csv", "file_name,caption\na.png,two\n");
    assert_eq!(captions(&*set.open("")), ["two", "one, with a comma"]);
    // Without captions, as of a set for detection, and beside captions of other files, it is no source.
    let set = ImageFolder::new(&["a"])
        .with("images/metadata.jsonl", "{\"file_name\": \"a.png\", \"objects\": {}}\n");
    assert!(set.open("").get(0, 0).unwrap().caption.is_none());
    let set = set.with("images/metadata.jsonl", lines).with("images/a.txt", "own");
    assert_eq!(captions(&*set.open("")), ["own"]);
    let set = ImageFolder::new(&["a", "c"]).with("images/metadata.jsonl", lines);
    let message = set.try_open("").err().unwrap();
    assert!(
        message.ends_with(
            "expected a caption of every image in metadata.jsonl or metadata.csv, got none for 1 of 2, e.g. c.png; try \
             captions: none"
        ),
        "{message}"
    );
}
