//! Log lines of components.

mod limiter;
mod traps;

use std::fmt::Write;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use lockgate_model::{LINE_MAX, escape, logfmt};
use tracing::Level;

use crate::clock;
use crate::host::StageIdentity;
use crate::limits::{FIELD_NAME_MAX, LOG_LINES, LOG_LINES_PER_SECOND};
use limiter::LineLimiter;
use traps::{EndedTraps, Traps};

/// Makes foreign text safe for a log or a reason: no control characters, at most 1 KiB.
pub(crate) fn line(text: &str) -> String {
    escape(text, LINE_MAX).into_owned()
}

/// Limits the log lines of all instances of a stage together.
#[derive(Debug, Default)]
pub(crate) struct StageLog {
    limiter: Mutex<LineLimiter>,
    traps: Mutex<Traps>,
}

/// The log lines of one instance. Those of a call are written when it ends: one that is made again
/// would write them twice.
#[derive(Debug)]
pub(crate) struct Lines {
    stage: Arc<StageLog>,
    last_error: Option<String>,
    /// At most [`LOG_LINES`].
    written: Vec<Line>,
    /// Lines of the call beyond these.
    left_out: u64,
    has_trapped: bool,
    /// Set while what was logged before is repeated: `configure` in a further instance, or a call
    /// on a fresh one.
    pub(crate) muted: bool,
}

/// A line that waits for the end of its call.
#[derive(Debug)]
struct Line {
    level: Level,
    text: String,
}

impl StageLog {
    /// Called when no more lines will be written.
    pub(crate) fn finish(&self, identity: &StageIdentity) {
        report(identity, "-", self.limiter().rest());
        report_traps(identity, self.traps().rest());
    }

    fn limiter(&self) -> MutexGuard<'_, LineLimiter> {
        self.limiter.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn traps(&self) -> MutexGuard<'_, Traps> {
        self.traps.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Lines {
    pub(crate) fn new(stage: Arc<StageLog>) -> Lines {
        Lines {
            stage,
            last_error: None,
            written: Vec::new(),
            left_out: 0,
            has_trapped: false,
            muted: false,
        }
    }

    /// Called before each call.
    pub(crate) fn begin(&mut self) {
        self.last_error = None;
        self.has_trapped = false;
    }

    /// The call has trapped. Returns the component's last line of level `error`, which is the
    /// message of the panic.
    pub(crate) fn trapped(&mut self) -> Option<String> {
        self.has_trapped = true;
        let mut traps = self.stage.traps();
        if traps.go_on() && self.left_out == 0 {
            self.written.pop_if(|line| line.level == Level::ERROR);
        }
        traps.trapped(clock::now(), self.muted);
        self.last_error.take()
    }

    pub(crate) fn emit<'a>(
        &mut self,
        level: Level,
        message: &str,
        fields: impl Iterator<Item = (&'a str, &'a str)>,
    ) {
        let mut is_kept = !self.muted && is_enabled(level);
        if is_kept && self.written.len() == LOG_LINES as usize {
            self.left_out += 1;
            is_kept = false;
        }
        if !is_kept && level != Level::ERROR {
            return;
        }
        let fields: Vec<_> = fields.collect();
        if is_kept {
            let message = cut(message);
            // A message that looks like fields is quoted.
            let message = if message.contains(['=', '"']) {
                logfmt(message, LINE_MAX)
            } else {
                message.into()
            };
            let text = text(&message, "plugin.", &fields);
            self.written.push(Line { level, text });
        }
        if level == Level::ERROR {
            self.last_error = Some(text(message, "", &fields));
        }
    }

    /// Called at the end of a call that stands.
    pub(crate) fn finish(&mut self, identity: &StageIdentity, batch: &str) {
        let mut lines = std::mem::take(&mut self.written);
        let now = clock::now();
        let dropped = {
            let mut limiter = self.stage.limiter();
            lines.retain(|_| limiter.take(now));
            limiter.leave_out(std::mem::take(&mut self.left_out));
            limiter.report(now)
        };
        for Line { level, text } in lines {
            write(identity, batch, level, &text);
        }
        if !self.has_trapped && !self.muted {
            report_traps(identity, self.stage.traps().returned(now));
        }
        report(identity, batch, dropped);
    }

    /// Called at the end of a call that is made again.
    pub(crate) fn discard(&mut self) {
        self.written.clear();
        self.left_out = 0;
    }
}

fn report_traps(identity: &StageIdentity, ended: Option<EndedTraps>) {
    let Some(EndedTraps { lasted, times }) = ended else {
        return;
    };
    tracing::info!(
        pipeline = %identity.pipeline, stage = %identity.stage, plugin = %identity.plugin,
        lasted_s = lasted.as_secs(), times,
        "its calls trapped; only the first trap was logged"
    );
}

fn report(identity: &StageIdentity, batch: &str, dropped: Option<u64>) {
    if let Some(count) = dropped {
        let text = format!(
            "{count} log lines were dropped: a stage may write {LOG_LINES} at once, and {LOG_LINES_PER_SECOND} per second"
        );
        write(identity, batch, Level::WARN, &text);
    }
}

/// Message and fields as one line, escaped and truncated together. `prefix`: of the names, so that
/// none is the name of a field of the host.
fn text(message: &str, prefix: &str, fields: &[(&str, &str)]) -> String {
    let mut text = cut(message).to_owned();
    for (name, value) in fields {
        if text.len() > LINE_MAX {
            break;
        }
        // Writing to a String cannot fail.
        let value = logfmt(cut(value), LINE_MAX);
        let _ = write!(text, " {prefix}{}={value}", field_name(name));
    }
    line(&text)
}

/// A name that cannot be read as anything else.
fn field_name(name: &str) -> String {
    let allowed = |char: char| char.is_ascii_alphanumeric() || "._-".contains(char);
    let name: String = name
        .chars()
        .take(FIELD_NAME_MAX)
        .map(|char| if allowed(char) { char } else { '_' })
        .collect();
    if name.is_empty() { "_".into() } else { name }
}

/// Truncates text to more than a line needs, before it is copied.
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

/// The target of plugins' lines, so that an operator can set their level separately.
const TARGET: &str = "plugin";

fn write(identity: &StageIdentity, batch: &str, level: Level, text: &str) {
    let StageIdentity {
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_of_a_component_cannot_pass_for_others() {
        let long = "n".repeat(65);
        let fields = [
            ("pipeline", "other"),
            ("a b=c", "x y=z"),
            ("", ""),
            ("stage\n", "\"quoted\" \\"),
            ("user.name-1_b", "al"),
            (&long, "1"),
        ];
        assert_eq!(
            text("seen", "plugin.", &fields),
            format!(
                "seen plugin.pipeline=other plugin.a_b_c=\"x y=z\" plugin._=\"\" \
                 plugin.stage_=\"\\\"quoted\\\" \\\\\" plugin.user.name-1_b=al plugin.{}=1",
                "n".repeat(64)
            )
        );
    }
}
