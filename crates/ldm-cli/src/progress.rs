//! Progress on stderr: a bar on a terminal, lines elsewhere.

use std::io::IsTerminal;
use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressStyle};
use ldm_core::terminal::{escaped, one_line};

use crate::terminal::say;

/// Printer of messages on stderr.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Printer {
    quiet: bool,
    verbose: bool,
}

impl Printer {
    pub(crate) fn new(quiet: bool, verbose: bool) -> Self {
        Self { quiet, verbose }
    }

    /// Returns the flags of a child process with the same verbosity.
    pub(crate) fn flags(self) -> &'static [&'static str] {
        match (self.quiet, self.verbose) {
            (true, _) => &["--quiet"],
            (_, true) => &["--verbose"],
            _ => &[],
        }
    }

    /// Returns the level of a log.
    pub(crate) fn level(self) -> &'static str {
        match (self.quiet, self.verbose) {
            (true, _) => "warn",
            (_, true) => "debug",
            _ => "info",
        }
    }

    /// Prints a message.
    pub(crate) fn say(self, text: &str) {
        if !self.quiet {
            say(text);
        }
    }

    /// Prints a message with --verbose only.
    pub(crate) fn detail(self, text: &str) {
        if self.verbose {
            say(text);
        }
    }

    /// Prints a warning, even with --quiet.
    pub(crate) fn warn(text: &str) {
        say(&format!("warning: {}", one_line(text)));
    }

    /// Creates a bar of `length` steps on a terminal; elsewhere it prints a line every 15 seconds.
    pub(crate) fn bar(self, length: u64, start: u64) -> Progress {
        self.progress(length, start, "{bar:30} {pos}/{len} {msg} ETA {eta}")
    }

    /// Creates a [`Printer::bar`] of bytes.
    pub(crate) fn bytes(self, length: u64, start: u64) -> Progress {
        self.progress(length, start, "{bar:30} {decimal_bytes}/{decimal_total_bytes} {msg} ETA {eta}")
    }

    fn progress(self, length: u64, start: u64, template: &str) -> Progress {
        let bar = (!self.quiet && std::io::stderr().is_terminal()).then(|| {
            let style = ProgressStyle::with_template(template).expect("a valid template");
            let bar = ProgressBar::new(length).with_style(style);
            bar.set_position(start);
            bar.reset_eta();
            bar
        });
        Progress {
            bar,
            printer: self,
            length,
            printed: Instant::now(),
            message: String::new(),
            started: Instant::now(),
            start,
        }
    }
}

/// Progress bar, or lines.
#[derive(Debug)]
pub(crate) struct Progress {
    bar: Option<ProgressBar>,
    printer: Printer,
    length: u64,
    printed: Instant,
    message: String,
    started: Instant,
    start: u64,
}

impl Progress {
    /// Moves to `position`.
    pub(crate) fn at(&mut self, position: u64) {
        if let Some(bar) = &self.bar {
            bar.set_position(position);
        } else if !self.printer.quiet
            && position > self.start
            && self.printed.elapsed() > Duration::from_secs(15)
        {
            self.printed = Instant::now();
            let done = position.saturating_sub(self.start).max(1);
            let left = self.started.elapsed().as_secs_f64() / done as f64
                * self.length.saturating_sub(position) as f64;
            say(&format!("{position}/{} {} ETA {left:.0} s", self.length, self.message));
        }
    }

    /// Sets the message next to the bar.
    pub(crate) fn message(&mut self, message: String) {
        if let Some(bar) = &self.bar {
            bar.set_message(escaped(&message).into_owned());
        } else {
            self.message = message;
        }
    }

    /// Prints a line above the bar.
    pub(crate) fn line(&self, text: &str) {
        match &self.bar {
            Some(bar) => bar.println(escaped(text)),
            None => self.printer.say(text),
        }
    }

    /// Removes the bar.
    pub(crate) fn finish(self) {
        if let Some(bar) = self.bar {
            bar.finish_and_clear();
        }
    }
}
