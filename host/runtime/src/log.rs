//! Log lines of components.

mod allowance;

use std::fmt::Write;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use lockgate_model::{LINE_MAX, escape};
use tracing::Level;

use crate::clock;
use crate::host::Identity;
use crate::limits::{LOG_LINES, LOG_LINES_A_SECOND};
use allowance::Allowance;

/// Foreign text as it may stand in a log or a reason: no control characters, at most 1 KiB.
pub(crate) fn line(text: &str) -> String {
    escape(text, LINE_MAX).into_owned()
}

/// What all instances of a stage may write together.
#[derive(Debug, Default)]
pub(crate) struct StageLog {
    allowance: Mutex<Allowance>,
}

/// The lines of one instance.
#[derive(Debug)]
pub(crate) struct Lines {
    stage: Arc<StageLog>,
    last_error: Option<String>,
    /// Set while `configure` is repeated in a fresh instance: the operator has read its lines
    /// before.
    pub(crate) muted: bool,
}

impl StageLog {
    /// When nothing more will come.
    pub(crate) fn finish(&self, identity: &Identity) {
        report(identity, "-", self.allowance().rest());
    }

    fn allowance(&self) -> MutexGuard<'_, Allowance> {
        self.allowance
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }
}

impl Lines {
    pub(crate) fn new(stage: Arc<StageLog>) -> Lines {
        Lines {
            stage,
            last_error: None,
            muted: false,
        }
    }

    /// What the component last said at level `error`: the message of a panic, where it is followed
    /// by a trap.
    pub(crate) fn take_last_error(&mut self) -> Option<String> {
        self.last_error.take()
    }

    pub(crate) fn emit<'a>(
        &mut self,
        identity: &Identity,
        batch: &str,
        level: Level,
        message: &str,
        fields: impl Iterator<Item = (&'a str, &'a str)>,
    ) {
        let is_written =
            !self.muted && is_enabled(level) && self.stage.allowance().take(clock::now());
        if !is_written && level != Level::ERROR {
            return;
        }
        let text = text(message, fields);
        if is_written {
            write(identity, batch, level, &text);
        }
        if level == Level::ERROR {
            self.last_error = Some(text);
        }
    }

    /// At the end of a call.
    pub(crate) fn finish(&mut self, identity: &Identity, batch: &str) {
        let left_out = self.stage.allowance().report(clock::now());
        report(identity, batch, left_out);
    }
}

fn report(identity: &Identity, batch: &str, left_out: Option<u64>) {
    if let Some(count) = left_out {
        let text = format!(
            "{count} log lines were left out: a stage may write {LOG_LINES} at once, and {LOG_LINES_A_SECOND} a second"
        );
        write(identity, batch, Level::WARN, &text);
    }
}

/// Message and fields as one line, escaped and cut as one.
fn text<'a>(message: &str, fields: impl Iterator<Item = (&'a str, &'a str)>) -> String {
    let mut text = cut(message).to_owned();
    for (name, value) in fields {
        if text.len() > LINE_MAX {
            break;
        }
        // Writing to a String cannot fail.
        let _ = write!(text, " {}={}", cut(name), cut(value));
    }
    line(&text)
}

/// Enough for a line. What is longer is cut before it is copied.
fn cut(text: &str) -> &str {
    &text[..text.floor_char_boundary(4 * LINE_MAX)]
}

/// Whether the host logs a component's lines of this level.
pub(crate) fn is_enabled(level: Level) -> bool {
    match level {
        Level::ERROR => tracing::enabled!(target: TARGET, Level::ERROR),
        Level::WARN => tracing::enabled!(target: TARGET, Level::WARN),
        Level::INFO => tracing::enabled!(target: TARGET, Level::INFO),
        Level::DEBUG => tracing::enabled!(target: TARGET, Level::DEBUG),
        Level::TRACE => tracing::enabled!(target: TARGET, Level::TRACE),
    }
}

/// So that an operator can choose the level of plugins' lines apart from the host's.
const TARGET: &str = "plugin";

fn write(identity: &Identity, batch: &str, level: Level, text: &str) {
    let Identity {
        pipeline,
        stage,
        plugin,
    } = identity;
    match level {
        Level::ERROR => {
            tracing::error!(target: TARGET, %pipeline, %stage, %plugin, batch, "{text}")
        }
        Level::WARN => tracing::warn!(target: TARGET, %pipeline, %stage, %plugin, batch, "{text}"),
        Level::INFO => tracing::info!(target: TARGET, %pipeline, %stage, %plugin, batch, "{text}"),
        Level::DEBUG => {
            tracing::debug!(target: TARGET, %pipeline, %stage, %plugin, batch, "{text}")
        }
        Level::TRACE => {
            tracing::trace!(target: TARGET, %pipeline, %stage, %plugin, batch, "{text}")
        }
    }
}
