//! Output: data to standard output, everything else to standard error.

use std::io::{IsTerminal, Write};

use lockgate_config::{Issues, Severity};
use lockgate_observe::{Format, PROBLEMS};

use crate::failure::Failure;

/// Writes data to standard output. A closed pipe is not a failure.
pub(crate) fn data(text: &str) -> Result<(), Failure> {
    let mut out = std::io::stdout().lock();
    match out.write_all(text.as_bytes()).and_then(|()| out.flush()) {
        Err(error) if error.kind() != std::io::ErrorKind::BrokenPipe => Err(Failure::failed(
            format!("Writing to standard output failed: {error}."),
        )),
        _ => Ok(()),
    }
}

/// Writes a line to standard error.
pub(crate) fn problem(text: &str) {
    // There is no place left to report that standard error is closed.
    let _ = writeln!(std::io::stderr().lock(), "{text}");
}

/// Writes the problems of a configuration: drawn for people, or a record each in a log that
/// machines read.
pub(crate) fn issues(issues: &Issues, format: Format) {
    if format == Format::Text {
        return problem(&issues.render(to_terminal()));
    }
    for issue in issues.issues() {
        let (line, column) = issues.position(issue);
        let (file, pipeline) = (issues.name(), issues.pipeline(issue));
        let (message, hint) = (&issue.message, &issue.hint);
        match issue.severity {
            Severity::Problem => {
                tracing::error!(target: PROBLEMS, file, line, column, pipeline, hint, "{message}");
            }
            Severity::Warning | Severity::Note => {
                tracing::warn!(target: PROBLEMS, file, line, column, pipeline, hint, "{message}");
            }
        }
    }
}

/// Writes a line of progress to standard error. On a terminal it replaces the previous one.
pub(crate) fn progress(text: &str, last: bool) {
    let mut err = std::io::stderr().lock();
    let _ = if std::io::stderr().is_terminal() {
        write!(err, "\r\x1b[2K{text}{}", if last { "\n" } else { "" })
    } else {
        writeln!(err, "{text}")
    };
    let _ = err.flush();
}

/// Whether standard error is a terminal that accepts colours.
#[allow(
    clippy::disallowed_methods,
    reason = "a property of the process, like the terminal itself"
)]
pub(crate) fn to_terminal() -> bool {
    std::io::stderr().is_terminal() && std::env::var_os("NO_COLOR").is_none()
}
