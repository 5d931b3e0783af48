//! SIGBUS, the signal of a read behind the end of a memory-mapped file.

use signal_hook::consts::SIGBUS;

const WORDS: &[u8] =
    b"error: a memory-mapped file was truncated by another program while it was in use; replace files by renaming\n";

/// See [`crate::explain_bus_errors`].
pub(crate) fn explain_bus_errors() {
    // SAFETY: the handler calls write(2) and _exit(2) alone, which are async-signal-safe.
    let registered = unsafe {
        signal_hook::low_level::register(SIGBUS, || {
            let _ = rustix::io::write(rustix::stdio::stderr(), WORDS);
            signal_hook::low_level::exit(1);
        })
    };
    // Without the handler the signal ends the process too, without words.
    drop(registered);
}
