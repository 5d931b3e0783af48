//! A server that belongs to the program that started it.

use std::path::Path;

use crate::ServeError;

/// Makes a temporary folder for the queue and the results, and removes it and calls `exit` as soon as stdin closes: when the
/// program at the other end of the pipe closes it, or has ended, by `kill -9` too. The folder also ends with its handle.
///
/// A signal at the death of the parent (`PR_SET_PDEATHSIG`) would come at the end of the thread that started the server.
///
/// # Errors
/// When the folder cannot be made, or no thread started.
pub fn end_with_stdin(exit: impl FnOnce() + Send + 'static) -> Result<impl AsRef<Path>, ServeError> {
    let folder = tempfile::Builder::new().prefix("ldm-serve-").tempdir()?;
    let path = folder.path().to_owned();
    std::thread::Builder::new().name("stdin".into()).spawn(move || {
        // Errors end it like the end of the stream.
        let _ = std::io::copy(&mut std::io::stdin().lock(), &mut std::io::sink());
        let _ = std::fs::remove_dir_all(path);
        exit();
    })?;
    Ok(folder)
}
