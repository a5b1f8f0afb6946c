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
/// Lines and columns of a terminal that does not say how many it has.
const SIZE: (usize, usize) = (24, 80);
/// Long lines go on so far to the right of where they begin.
const INDENT: usize = 2;

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
    let (lines, columns) = size.map_or(SIZE, |size| {
        (usize::from(size.ws_row), usize::from(size.ws_col))
    });
    let columns = if columns == 0 { SIZE.1 } else { columns };
    write(&frame(text, lines.max(2), columns))
}

/// As many lines as the terminal has; the last says how many are missing.
fn frame(text: &str, lines: usize, columns: usize) -> String {
    let text: Vec<String> = text
        .lines()
        .flat_map(|line| wrapped(line, columns))
        .collect();
    let count = text.len();
    let shown = if count > lines { lines - 1 } else { count };
    let mut frame = "\x1b[H".to_owned();
    for (nth, line) in text.iter().take(shown).enumerate() {
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

/// A line of text in lines that are at most so long, broken at spaces where there are any: what
/// the end of a reason says to do must not be cut off.
fn wrapped(line: &str, columns: usize) -> Vec<String> {
    let begins = line.len() - line.trim_start().len();
    let indent = " ".repeat((begins + INDENT).min(columns / 2));
    let mut lines = Vec::new();
    let mut rest = line.to_owned();
    while rest.chars().count() > columns {
        let cut = rest
            .char_indices()
            .nth(columns)
            .map_or(rest.len(), |(at, _)| at);
        let ends = rest.len() - rest.trim_start().len();
        // A space right after the last column ends the line, too.
        let end = cut + usize::from(rest[cut..].starts_with(' '));
        let space = rest[..end].rfind(' ');
        let at = match space.filter(|&at| at > ends) {
            Some(at) => at,
            None => cut,
        };
        let after = rest.split_off(at);
        lines.push(rest);
        rest = format!("{indent}{}", after.trim_start());
    }
    lines.push(rest);
    lines
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
            let frame = frame(text, lines, 80).replace("\x1b[K", "");
            frame.replace("\x1b[H", "").replace("\x1b[J", "")
        };
        assert_eq!(lines("a\nb\nc\n", 3), "a\r\nb\r\nc");
        assert_eq!(lines("a\nb\nc\nd\n", 3), "a\r\nb\r\n… 2 more lines");
        assert_eq!(lines("", 3), "");
        let long = format!("{}\n{0}\n", "a ".repeat(50));
        assert!(lines(&long, 3).ends_with("… 2 more lines"), "{long}");
    }

    #[test]
    fn long_lines_are_broken_at_spaces_and_none_of_them_is_cut_off() {
        for (line, columns, expected) in [
            ("a reason", 8, &["a reason"][..]),
            ("  brake: so it is", 12, &["  brake: so", "    it is"]),
            ("  brake: so it is", 11, &["  brake: so", "    it is"]),
            ("  https://longer", 8, &["  https:", "    //lo", "    nger"]),
            ("é é é é", 3, &["é é", " é", " é"]),
        ] {
            assert_eq!(wrapped(line, columns), expected, "{line:?}");
        }
    }
}
