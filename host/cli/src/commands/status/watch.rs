//! `lockgate status --watch`: the status on a screen of its own, written again every second.

use std::io::{IsTerminal, Write};
use std::time::Duration;

use rustix::termios::tcgetwinsize;
use tokio::time::interval;

use super::report::StatusView;
use super::{Target, table};
use crate::failure::Failure;
use crate::setup;
use crate::signals::Signals;

const EVERY: Duration = Duration::from_secs(1);
/// The alternate screen, without a cursor, and without wrapping long lines.
const ENTER: &str = "\x1b[?1049h\x1b[?25l\x1b[?7l";
const LEAVE: &str = "\x1b[?7h\x1b[?25h\x1b[?1049l";
/// Lines of a terminal that does not say how many it has.
const LINES: usize = 24;

pub(super) fn run(target: &Target) -> Result<(), Failure> {
    if !std::io::stdout().is_terminal() {
        return Err(
            Failure::usage("`--watch` needs a terminal, and standard output is not one.")
                .hint("use `lockgate status`, or `lockgate status --json` in a script"),
        );
    }
    crate::commands::tokio_runtime()?.block_on(async {
        let mut signals = Signals::new()?;
        let _screen = Screen::enter()?;
        let mut ticks = interval(EVERY);
        loop {
            tokio::select! {
                _ = signals.next() => return Ok(()),
                _ = ticks.tick() => {}
            }
            // A host or a store that is not there yet may come.
            let now = setup::now();
            let text = match tokio::task::block_in_place(|| StatusView::of(target, now)) {
                Ok(report) => table::table(&report, now),
                Err(failure) => format!("{}\n", failure),
            };
            draw(&text)?;
        }
    })
}

/// Writes over what was there, so that nothing flickers.
fn draw(text: &str) -> Result<(), Failure> {
    let size = tcgetwinsize(std::io::stdout());
    let lines = size.map_or(LINES, |size| usize::from(size.ws_row)).max(2);
    write(&frame(text, lines))
}

/// As many lines as the terminal has; the last says how many are missing.
fn frame(text: &str, lines: usize) -> String {
    let count = text.lines().count();
    let shown = if count > lines { lines - 1 } else { count };
    let mut frame = "\x1b[H".to_owned();
    for (nth, line) in text.lines().take(shown).enumerate() {
        if nth > 0 {
            frame += "\r\n";
        }
        frame += line;
        frame += "\x1b[K";
    }
    if shown < count {
        frame += &format!("\r\n… {} more lines\x1b[K", count - shown);
    }
    frame + "\x1b[J"
}

fn write(text: &str) -> Result<(), Failure> {
    let mut out = std::io::stdout().lock();
    out.write_all(text.as_bytes())
        .and_then(|()| out.flush())
        .map_err(|error| Failure::failed(format!("Writing to the terminal failed: {error}.")))
}

/// The alternate screen; the one before is back when this is dropped.
struct Screen;

impl Screen {
    fn enter() -> Result<Screen, Failure> {
        write(ENTER)?;
        Ok(Screen)
    }
}

impl Drop for Screen {
    fn drop(&mut self) {
        // The terminal may have gone.
        let _ = write(LEAVE);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_frame_has_as_many_lines_as_the_terminal_and_counts_the_others() {
        let lines = |text: &str, lines| {
            let frame = frame(text, lines).replace("\x1b[K", "");
            frame.replace("\x1b[H", "").replace("\x1b[J", "")
        };
        assert_eq!(lines("a\nb\nc\n", 3), "a\r\nb\r\nc");
        assert_eq!(lines("a\nb\nc\nd\n", 3), "a\r\nb\r\n… 2 more lines");
        assert_eq!(lines("", 3), "");
    }
}
