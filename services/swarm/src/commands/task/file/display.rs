//! What a person sees meanwhile: a bar on a terminal, a line now and then elsewhere. All of it on stderr.

use std::{
    io::IsTerminal,
    sync::{Mutex, PoisonError},
    time::{Duration, Instant},
};

use indicatif::{ProgressBar, ProgressStyle};

/// How often a line is printed where there is no terminal.
const LINE_EVERY: Duration = Duration::from_secs(5);
const TEMPLATE: &str = "{msg} {wide_bar} {human_pos}/{human_len} {per_sec} {eta}";

/// How far it is.
pub struct Display {
    bar: ProgressBar,
    what: &'static str,
    /// When the last line was printed, and the last notice; `None` on a terminal.
    plain: Option<Mutex<(Instant, Option<Instant>)>>,
}

impl Display {
    /// A display of `what`, of which there are `length`.
    pub fn new(what: &'static str, length: u64) -> Self {
        let plain = !std::io::stderr().is_terminal();
        let bar = if plain {
            ProgressBar::hidden()
        } else {
            ProgressBar::new(length)
        };
        bar.set_length(length);
        // The template is a constant: it is right or the tests fail.
        if let Ok(style) = ProgressStyle::with_template(TEMPLATE) {
            bar.set_style(style);
        }
        bar.set_message(what);
        Self {
            bar,
            what,
            plain: plain.then(|| Mutex::new((Instant::now(), None))),
        }
    }

    /// It is at `position`. What was there before this run counts for no speed.
    pub fn begin_at(&self, position: u64) {
        self.bar.set_position(position);
        self.bar.reset_eta();
    }

    /// It has come to `position`.
    pub fn at(&self, position: u64) {
        self.bar.set_message(self.what);
        self.bar.set_position(position);
        let Some(plain) = &self.plain else { return };
        let mut last = plain.lock().unwrap_or_else(PoisonError::into_inner);
        if last.0.elapsed() >= LINE_EVERY {
            last.0 = Instant::now();
            let length = self.bar.length().unwrap_or(0).max(1);
            eprintln!(
                "{}: {position} of {length} lines ({} %)",
                self.what,
                u128::from(position) * 100 / u128::from(length)
            );
        }
    }

    /// By so much more.
    pub fn more(&self, by: u64) {
        self.bar.inc(by);
    }

    /// Something that holds it up.
    pub fn notice(&self, text: &str) {
        self.bar.set_message(text.to_owned());
        let Some(plain) = &self.plain else { return };
        let mut last = plain.lock().unwrap_or_else(PoisonError::into_inner);
        if last.1.is_none_or(|at| at.elapsed() >= LINE_EVERY) {
            last.1 = Some(Instant::now());
            eprintln!("{}: {text}", self.what);
        }
    }

    /// It is over.
    pub fn end(&self) {
        self.bar.finish_and_clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_template_of_the_bar_is_valid() {
        assert!(ProgressStyle::with_template(TEMPLATE).is_ok());
    }
}
