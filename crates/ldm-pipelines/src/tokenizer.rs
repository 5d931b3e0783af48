//! Tokenizers of text models.

use std::path::{Path, PathBuf};

use ldm_conditioning::{ConditionerConfig, Tokenizer, TokenizerKind};
use ldm_core::{Error, Result, files, resources};

/// Finds the tokenizer of a model with this conditioner: `given`, else `tokenizer/` in `folder`, that of the weights,
/// else the one that `ldm weights get` downloaded into the user's cache. None where the model reads no text or there is
/// no tokenizer: the model works without one except with text prompts.
///
/// # Errors
/// When the tokenizer is damaged or of another kind.
pub fn find_tokenizer(
    conditioner: &ConditionerConfig,
    given: Option<&Path>,
    folder: Option<&Path>,
) -> Result<Option<Tokenizer>> {
    let Some(kind) = conditioner.tokenizer_kind() else { return Ok(None) };
    tokenizer_path(kind, given, folder).map(|path| Tokenizer::open(kind, path)).transpose()
}

/// The path of [`find_tokenizer`]: a folder or a file.
pub(crate) fn tokenizer_path(
    kind: TokenizerKind,
    given: Option<&Path>,
    folder: Option<&Path>,
) -> Option<PathBuf> {
    let in_folder = || Some(folder?.join("tokenizer")).filter(|path| path.is_dir());
    given.map(Path::to_path_buf).or_else(in_folder).or_else(|| installed(kind))
}

/// The file that `ldm weights get` downloaded into the user's cache.
fn installed(kind: TokenizerKind) -> Option<PathBuf> {
    let file = match kind {
        TokenizerKind::Bert => "vocab.txt",
        TokenizerKind::Clip => "bpe_simple_vocab_16e6.txt.gz",
    };
    resources::find(kind.download(), file)
}

/// Copies the tokenizer at `path`, a file or the files of a folder, into a new `folder`.
pub(crate) fn copy_tokenizer(path: &Path, folder: &Path) -> Result<()> {
    files::make_folder(folder)?;
    let copy = |file: &Path| {
        let bytes = std::fs::read(file).map_err(Error::io(file))?;
        files::write_bytes(folder.join(file.file_name().expect("a file has a name")), &bytes)
    };
    if path.is_file() {
        return copy(path);
    }
    for entry in std::fs::read_dir(path).map_err(Error::io(path))? {
        let file = entry.map_err(Error::io(path))?.path();
        if file.is_file() {
            copy(&file)?;
        }
    }
    Ok(())
}

/// Copies the user's tokenizer next to the weights of a text model, as `tokenizer/` in `folder`, so that the export is
/// self-contained. Does nothing where the model reads no text, or there is a tokenizer already, or none to copy.
///
/// # Errors
/// [`Error::Io`].
pub fn export_tokenizer(conditioner: &ConditionerConfig, folder: &Path) -> Result<()> {
    let out = folder.join("tokenizer");
    let Some(source) = conditioner.tokenizer_kind().filter(|_| !out.exists()).and_then(installed) else {
        return Ok(());
    };
    let bytes = std::fs::read(&source).map_err(Error::io(&source))?;
    let name = source.file_name().expect("a file has a name");
    files::make_folder(&out)?;
    files::write_bytes(out.join(name), &bytes)
}
