//! A command's failure: message, hint and exit status.

use std::fmt;

use lockgate_config::Issues;
use lockgate_model::sentence;
use lockgate_observe::{Format, PROBLEMS};

use crate::print;

/// Why a command failed, and what to do about it.
#[derive(Debug)]
pub(crate) struct Failure {
    pub(crate) kind: FailureKind,
    /// Sentences, or a rendered report.
    pub(crate) message: String,
    pub(crate) hints: Vec<String>,
    /// What `message` renders, if it is about a configuration.
    pub(crate) issues: Option<Issues>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum FailureKind {
    /// Exit status 1.
    Failed,
    /// Wrong arguments or configuration: exit status 2.
    Usage,
}

impl Failure {
    pub(crate) fn failed(message: impl fmt::Display) -> Failure {
        Failure {
            kind: FailureKind::Failed,
            message: format!("error: {}", sentence(&message.to_string())),
            hints: Vec::new(),
            issues: None,
        }
    }

    pub(crate) fn usage(message: impl fmt::Display) -> Failure {
        Failure {
            kind: FailureKind::Usage,
            message: format!("error: {}", sentence(&message.to_string())),
            hints: Vec::new(),
            issues: None,
        }
    }

    /// Several things that went wrong.
    pub(crate) fn several(kind: FailureKind, messages: &[String]) -> Failure {
        let lines = messages
            .iter()
            .map(|message| format!("error: {}", sentence(message)));
        Failure {
            kind,
            message: lines.collect::<Vec<_>>().join("\n"),
            hints: Vec::new(),
            issues: None,
        }
    }

    /// A rendered report, which has its own headings.
    pub(crate) fn report(rendered: String) -> Failure {
        Failure {
            kind: FailureKind::Usage,
            message: rendered,
            hints: Vec::new(),
            issues: None,
        }
    }

    /// A configuration that has problems.
    pub(crate) fn issues(issues: Issues) -> Failure {
        let rendered = issues.render(print::to_terminal());
        Failure {
            issues: Some(issues),
            ..Failure::report(rendered)
        }
    }

    pub(crate) fn hint(mut self, hint: impl Into<String>) -> Failure {
        self.hints.push(hint.into());
        self
    }

    /// Says why the command failed: to people, or as records of a log that machines read.
    pub(crate) fn show(&self, format: Format) {
        match (format, &self.issues) {
            (Format::Text, _) => print::problem(&self.to_string()),
            (Format::Json, Some(issues)) => print::issues(issues, format),
            (Format::Json, None) => {
                let message = self.message.trim_start_matches("error: ").trim_end();
                let hint = (!self.hints.is_empty()).then(|| self.hints.join("\n"));
                tracing::error!(target: PROBLEMS, hint, "{message}");
            }
        }
    }

    pub(crate) fn exit_code(&self) -> u8 {
        match self.kind {
            FailureKind::Failed => 1,
            FailureKind::Usage => 2,
        }
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.message.trim_end())?;
        self.hints
            .iter()
            .try_for_each(|hint| write!(f, "\nhint: {hint}"))
    }
}
