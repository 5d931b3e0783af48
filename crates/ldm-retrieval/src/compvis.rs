//! Databases of CompVis' retrieval-augmented diffusion.

use std::path::{Path, PathBuf};

use ldm_checkpoint::Npz;
use ldm_core::{Error, Result};
use tch::Kind;

use crate::IndexWriter;

/// Rows that are converted at once.
const CHUNK: i64 = 8192;

/// The files of a database of CompVis: `path` itself, if it is an `.npz`, or those of the folder `path`, if they are its only
/// files, sorted. `None` for everything else.
pub fn compvis_files(path: &Path) -> Option<Vec<PathBuf>> {
    let is_npz = |path: &Path| path.extension().is_some_and(|ending| ending == "npz");
    if is_npz(path) {
        return Some(vec![path.to_path_buf()]);
    }
    let entries = std::fs::read_dir(path).ok()?;
    let mut files: Vec<PathBuf> = entries.map(|entry| Some(entry.ok()?.path())).collect::<Option<_>>()?;
    files.sort();
    (!files.is_empty() && files.iter().all(|file| is_npz(file))).then_some(files)
}

/// Adds a file of a database of CompVis: `embedding` `[N, D]`, `img_id` `[N]` and `patch_coords` `[N, …]`. A name is the
/// `img_id`, with the coordinates of a patch in brackets where there are any.
///
/// # Errors
/// [`Error::Io`] and [`Error::Format`] when the file cannot be read, is damaged, or lacks an array; those of
/// [`IndexWriter::push`].
///
/// CompVis `scripts/knn2img.py:103` `Searcher.load_single_file`.
pub fn add_compvis_file(writer: &mut IndexWriter, path: &Path) -> Result<()> {
    let npz = Npz::open(path)?;
    let info = npz.info("embedding")?;
    let refuse = |name: &str, expected: &str, shape: &[i64], kind: Kind| {
        Error::format(path, format!("`{name}`: expected {expected}, got {shape:?} of {kind:?}"))
    };
    let [count, width] = info.shape[..] else {
        return Err(refuse("embedding", "[N, D] floats", &info.shape, info.kind));
    };
    if count < 1 || width < 1 || !matches!(info.kind, Kind::Half | Kind::Float | Kind::Double) {
        return Err(refuse("embedding", "[N, D] floats", &info.shape, info.kind));
    }
    let mut names = npz.texts("img_id")?;
    if names.len() as i64 != count {
        let message = format!("`img_id`: expected {count} names, as of `embedding`, got {}", names.len());
        return Err(Error::format(path, message));
    }
    if npz.contains("patch_coords") {
        let places = npz.array("patch_coords")?;
        if places.size().first() != Some(&count) {
            let expected = format!("[{count}, …], as of `embedding`");
            return Err(refuse("patch_coords", &expected, &places.size(), places.kind()));
        }
        let places = places.reshape([count, -1]).to_kind(Kind::Double);
        for (row, name) in (0..).zip(&mut names) {
            let place = Vec::<f64>::try_from(places.get(row)).expect("a flat row of f64");
            let place: Vec<String> = place.iter().map(ToString::to_string).collect();
            name.extend([" [", &place.join(", "), "]"]);
        }
    }
    let all = npz.array("embedding")?;
    // In chunks, since a file may have millions of rows.
    for (rows, names) in all.split(CHUNK, 0).iter().zip(names.chunks(CHUNK as usize)) {
        writer.push(rows, names)?;
    }
    Ok(())
}
