use std::io::{IsTerminal, Write};

use crate::failure::Failure;

/// Data, to standard output. A closed pipe is the reader's choice and no failure.
pub(crate) fn data(text: &str) -> Result<(), Failure> {
    let mut out = std::io::stdout().lock();
    match out.write_all(text.as_bytes()).and_then(|()| out.flush()) {
        Err(error) if error.kind() != std::io::ErrorKind::BrokenPipe => Err(Failure::failed(
            format!("Standard output cannot be written: {error}."),
        )),
        _ => Ok(()),
    }
}

/// A line for a person, to standard error.
pub(crate) fn problem(text: &str) {
    // Nobody is left to tell when standard error is gone.
    let _ = writeln!(std::io::stderr().lock(), "{text}");
}

/// A line that replaces itself on a terminal, and is printed whole elsewhere.
pub(crate) fn progress(text: &str, last: bool) {
    let mut err = std::io::stderr().lock();
    let _ = if std::io::stderr().is_terminal() {
        write!(err, "\r\x1b[2K{text}{}", if last { "\n" } else { "" })
    } else {
        writeln!(err, "{text}")
    };
    let _ = err.flush();
}

/// Whether standard error is a terminal, which may be given colours and moving lines.
pub(crate) fn to_terminal() -> bool {
    std::io::stderr().is_terminal() && std::env::var_os("NO_COLOR").is_none()
}
