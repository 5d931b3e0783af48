//! The log.

use tracing_subscriber::filter::LevelFilter;

/// Writes the log of this program's server to stderr: lines for people, or JSON lines; `level` is `warn`, `info` or `debug`.
pub fn log_to_stderr(level: &str, json: bool) {
    let level = level.parse().unwrap_or(LevelFilter::INFO);
    let subscriber =
        tracing_subscriber::fmt().with_writer(std::io::stderr).with_max_level(level).with_target(false);
    // A second log is that of a test in the same process.
    let _ = if json { subscriber.json().try_init() } else { subscriber.try_init() };
}
