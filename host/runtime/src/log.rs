//! Log lines of components.

use std::fmt::Write;

use lockgate_model::{LINE_MAX, escape};
use tracing::Level;

use crate::host::Identity;

/// Foreign text as it may stand in a log or a reason: no control characters, at most 1 KiB.
pub(crate) fn line(text: &str) -> String {
    escape(text, LINE_MAX).into_owned()
}

/// The lines of one batch: so many, then only their number.
#[derive(Debug)]
pub(crate) struct Lines {
    left: u32,
    suppressed: u32,
    last_error: Option<String>,
    /// Set while `configure` is repeated in a fresh instance: the operator has read its lines
    /// before.
    pub(crate) muted: bool,
}

impl Lines {
    pub(crate) fn new(limit: u32) -> Lines {
        Lines {
            left: limit,
            suppressed: 0,
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
        let is_error = level == Level::ERROR;
        if !is_error && (self.muted || !is_enabled(level)) {
            return;
        }
        if self.left == 0 && !is_error {
            self.suppressed += 1;
            return;
        }
        let text = text(message, fields);
        if is_error {
            self.last_error = Some(text.clone());
        }
        if self.muted || !is_enabled(level) {
            return;
        }
        if self.left == 0 {
            self.suppressed += 1;
            return;
        }
        self.left -= 1;
        write(identity, batch, level, &text);
    }

    /// At the end of a call.
    pub(crate) fn finish(&mut self, identity: &Identity, batch: &str, limit: u32) {
        let suppressed = std::mem::take(&mut self.suppressed);
        if suppressed > 0 {
            let text = format!(
                "{suppressed} more log lines of this batch were left out: at most {limit} are kept"
            );
            write(identity, batch, Level::WARN, &text);
        }
        self.left = limit;
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
