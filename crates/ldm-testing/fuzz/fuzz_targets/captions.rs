#![no_main]

use std::path::Path;

use ldm_data::{CaptionFile, CaptionSource, Dataset, ImagesConfig, Missing, StoredImages, TransformConfig};
use ldm_fuzz::{Folder, bounded};

thread_local! {
    /// A folder with one image.
    static FOLDER: Folder = {
        let folder = Folder::new();
        std::fs::create_dir(folder.path("set")).expect("a folder");
        folder.write("set/a.png", b"\x89PNG\r\n\x1a\n");
        folder
    };
}

// The first byte selects the kind of file, and its place: a file of captions, or one beside the image.
libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    let Some((first, bytes)) = bytes.split_first() else { return };
    FOLDER.with(|folder| {
        let beside = ["set/a.txt", "set/a.json", "set/metadata.jsonl", "set/metadata.csv", "set/a.cls"];
        let lists = ["c.tsv", "c.csv", "c.jsonl", "c.json"];
        let names = beside.iter().chain(&lists).collect::<Vec<_>>();
        let name = names[usize::from(*first) % names.len()];
        let path = folder.write(name, bytes);
        let mut config = ImagesConfig::new(folder.path("set").to_string_lossy(), TransformConfig::square(8));
        if lists.contains(name) {
            let missing = Missing::default();
            config.captions =
                CaptionSource::File(CaptionFile { file: path.clone(), name: None, caption: None, missing });
        }
        bounded(bytes.len(), || -> ldm_core::Result<()> {
            let set = StoredImages::open(config, Path::new(""))?;
            (0..set.len().min(4)).try_for_each(|index| set.without_image(index, 1).map(|_| ()))
        });
        std::fs::remove_file(path).expect("the file");
    });
});
