#![no_main]

use ldm_data::{TransformConfig, open_path};
use ldm_fuzz::{Folder, bounded};

thread_local! {
    static FOLDER: Folder = Folder::new();
}

// A tar, a gzipped tar or a zip, with texts beside images.
libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    let path = FOLDER.with(|folder| folder.write("a.tar", bytes));
    bounded(bytes.len(), || -> ldm_core::Result<()> {
        let set = open_path(&path, TransformConfig::square(8))?;
        (0..set.len().min(4)).try_for_each(|index| set.without_image(index, 1).map(|_| ()))
    });
});
