//! Sets up logging to standard error.

use std::backtrace::{Backtrace, BacktraceStatus};
use std::io::{self, IsTerminal, Write};
use std::sync::{Mutex, PoisonError};
use std::time::SystemTime;

use lockgate_model::Masks;
use thiserror::Error;
use tracing::span::{Attributes, Id, Record};
use tracing::{Event, Level, Subscriber};
use tracing_subscriber::layer::{Context, Layer, SubscriberExt};
use tracing_subscriber::registry::LookupSpan;

use crate::filter;
use crate::line::{Fields, Line};

/// The format of the log.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Format {
    /// Readable lines: time, level, message, fields. Coloured on a terminal, unless `NO_COLOR` is
    /// set.
    #[default]
    Text,
    /// One JSON object per line: `timestamp`, `level`, `target`, `message`, `fields`.
    Json,
}

#[derive(Debug, Error)]
pub enum LogError {
    #[error("`{0}` is not a log filter: {1}")]
    Filter(String, String),
    #[error("the log is already set up")]
    AlreadySet,
}

/// Writes all `tracing` events of this process to standard error from here on, and panics, too.
///
/// `filter`: a level, or directives such as `info,lockgate_teleport=debug`. A bare level applies to
/// our own crates; libraries log only warnings unless they are named. `masks`: secrets that are
/// added later are masked, too.
#[allow(
    clippy::disallowed_methods,
    reason = "set up once per process; tests build `Log` themselves"
)]
pub fn init_logging(format: Format, filter: &str, masks: Masks) -> Result<(), LogError> {
    let targets = filter::parse(filter)
        .map_err(|error| LogError::Filter(filter.to_owned(), error.to_string()))?;
    // https://no-color.org: present and not empty.
    let colour = io::stderr().is_terminal()
        && std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty());
    let log = Log {
        format,
        colour,
        masks,
        clock: SystemTime::now,
        out: Mutex::new(io::stderr()),
    };
    let subscriber = tracing_subscriber::registry().with(log.with_filter(targets));
    tracing::subscriber::set_global_default(subscriber).map_err(|_| LogError::AlreadySet)?;
    log_panics();
    Ok(())
}

/// A panic is a line of the log like any other: in its format, and with secrets masked.
#[allow(clippy::disallowed_methods, reason = "set up once per process")]
fn log_panics() {
    let default = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |panic| {
        if !tracing::enabled!(Level::ERROR) {
            return default(panic);
        }
        let message = panic.payload_as_str().unwrap_or("without a message");
        let place = panic.location().map(tracing::field::display);
        let thread = std::thread::current();
        // Captured only if RUST_BACKTRACE asks for it.
        let backtrace = Backtrace::capture();
        let backtrace = (backtrace.status() == BacktraceStatus::Captured).then_some(backtrace);
        tracing::error!(
            place,
            thread = thread.name(),
            backtrace = backtrace.as_ref().map(tracing::field::display),
            "this is a defect of Lockgate, please report it: it panicked: {message}"
        );
    }));
}

struct Log<W> {
    format: Format,
    colour: bool,
    masks: Masks,
    clock: fn() -> SystemTime,
    out: Mutex<W>,
}

impl<W: Write + 'static, S: Subscriber + for<'a> LookupSpan<'a>> Layer<S> for Log<W> {
    fn on_new_span(&self, attributes: &Attributes<'_>, id: &Id, context: Context<'_, S>) {
        let mut fields = Fields::default();
        attributes.record(&mut fields);
        if let Some(span) = context.span(id) {
            span.extensions_mut().insert(fields);
        }
    }

    fn on_record(&self, id: &Id, record: &Record<'_>, context: Context<'_, S>) {
        if let Some(span) = context.span(id)
            && let Some(fields) = span.extensions_mut().get_mut::<Fields>()
        {
            record.record(fields);
        }
    }

    /// The event's own fields first, then those of the spans around it, outermost first.
    fn on_event(&self, event: &Event<'_>, context: Context<'_, S>) {
        let mut around = Fields::default();
        for span in context
            .event_scope(event)
            .into_iter()
            .flat_map(|scope| scope.from_root())
        {
            if let Some(fields) = span.extensions().get::<Fields>() {
                around.extend(fields);
            }
        }
        let mut own = Fields::default();
        event.record(&mut own);
        let mut fields = own.clone();
        fields.extend(&around);
        // If both have a field, the event's own value wins.
        fields.extend(&own);
        let line = Line {
            time: (self.clock)(),
            metadata: event.metadata(),
            fields,
        };
        let line = match self.format {
            Format::Text => line.text(&self.masks, self.colour),
            Format::Json => line.json(&self.masks),
        };
        // One write per line, so that lines of other processes on the same terminal do not mix in.
        // There is no place to report a failure.
        let _ = self
            .out
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .write_all(line.as_bytes());
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::time::Duration;

    use serde_json::{Value, json};

    use super::*;

    #[derive(Clone, Default)]
    struct SharedBuffer(Arc<Mutex<Vec<u8>>>);

    impl Write for SharedBuffer {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().unwrap().write(bytes)
        }
        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    /// The log of `events`, with these secrets masked.
    fn logged(format: Format, colour: bool, secrets: &[&str], events: impl FnOnce()) -> String {
        let (buffer, masks) = (SharedBuffer::default(), Masks::new());
        let clock = || SystemTime::UNIX_EPOCH + Duration::from_millis(1_767_700_800_042);
        let log = Log {
            format,
            colour,
            masks: masks.clone(),
            clock,
            out: Mutex::new(buffer.clone()),
        };
        let subscriber =
            tracing_subscriber::registry().with(log.with_filter(filter::parse("debug").unwrap()));
        secrets.iter().for_each(|secret| assert!(masks.add(secret)));
        tracing::subscriber::with_default(subscriber, events);
        String::from_utf8(buffer.0.lock().unwrap().clone()).unwrap()
    }

    fn log_sample_events() {
        let span = tracing::info_span!("batch", pipeline = "siem", batch = tracing::field::Empty);
        span.record("batch", 7);
        let _entered = span.enter();
        tracing::warn!(reason = "no answer", after = ?Duration::from_secs(2), ratio = 0.5, ok = false, "the receiver is {}", "slow");
        tracing::info!(target: "hyper::client", "not shown at info");
        tracing::trace!("not shown at debug");
        tracing::error!(target: "hyper", pipeline = "of the event", text = "a\n\"b\"", nothing = "", "two\nlines \x1b[31m");
    }

    #[test]
    fn text_is_one_readable_line_per_event() {
        assert_eq!(
            logged(Format::Text, false, &[], log_sample_events),
            concat!(
                "2026-01-06T12:00:00.042Z WARN  the receiver is slow reason=\"no answer\" after=2s ratio=0.5 ok=false pipeline=siem batch=7\n",
                "2026-01-06T12:00:00.042Z ERROR hyper: two\\nlines \\u{1b}[31m pipeline=\"of the event\" text=\"a\\n\\\"b\\\"\" nothing=\"\" batch=7\n",
            )
        );
    }

    #[test]
    fn a_plugin_cannot_pass_for_another() {
        let events = || {
            let pipeline = "siem\\ x\\";
            tracing::info!(target: "plugin", pipeline, stage = "a\\", "pipeline=other seen");
        };
        assert_eq!(
            logged(Format::Text, false, &[], events),
            "2026-01-06T12:00:00.042Z INFO  plugin: pipeline=\"siem\\\\ x\\\\\" stage=\"a\\\\\" \
             pipeline=other seen\n"
        );
    }

    #[test]
    fn colours_carry_no_meaning_of_their_own() {
        let coloured = logged(Format::Text, true, &[], log_sample_events);
        assert!(
            coloured.contains("\x1b[33mWARN \x1b[0m the receiver"),
            "{coloured}"
        );
        let mut plain = coloured;
        for code in ["\x1b[2m", "\x1b[33m", "\x1b[1;31m", "\x1b[0m"] {
            plain = plain.replace(code, "");
        }
        assert_eq!(plain, logged(Format::Text, false, &[], log_sample_events));
    }

    #[test]
    fn json_is_one_object_per_line() {
        let lines: Vec<Value> = logged(Format::Json, true, &[], log_sample_events)
            .lines()
            .map(|line| serde_json::from_str(line).unwrap())
            .collect();
        assert_eq!(
            lines,
            [
                json!({
                    "timestamp": "2026-01-06T12:00:00.042Z",
                    "level": "WARN",
                    "target": "lockgate_observe::log::tests",
                    "message": "the receiver is slow",
                    "fields": {
                        "pipeline": "siem", "batch": 7, "reason": "no answer", "after": "2s", "ratio": 0.5, "ok": false
                    },
                }),
                json!({
                    "timestamp": "2026-01-06T12:00:00.042Z",
                    "level": "ERROR",
                    "target": "hyper",
                    "message": "two\nlines \u{1b}[31m",
                    "fields": { "pipeline": "of the event", "batch": 7, "text": "a\n\"b\"", "nothing": "" },
                }),
            ]
        );
    }

    #[test]
    fn secrets_are_masked_in_messages_fields_and_spans() {
        let secrets = ["hunter22", "p\"w\nx", "1234", "true", "two words"];
        let events = || {
            let span = tracing::info_span!("connection", token = "hunter22");
            let _entered = span.enter();
            let error = io::Error::other("the token hunter22 is wrong");
            tracing::info!(
                error = &error as &(dyn std::error::Error + 'static),
                debug = ?("hunter22", "p\"w\nx"),
                number = 1234,
                flag = true,
                long = 1_234_567,
                "sent p\"w\nx as hunter22, two words"
            );
        };
        assert_eq!(
            logged(Format::Text, false, &secrets, events),
            "2026-01-06T12:00:00.042Z INFO  sent *** as ***, *** error=\"the token *** is wrong\" \
             debug=\"(\\\"***\\\", \\\"***\\\")\" number=*** flag=*** long=***567 token=***\n"
        );
        let line = logged(Format::Json, false, &secrets, events);
        let object: Value = serde_json::from_str(&line).expect("a mask does not break the JSON");
        assert_eq!(object["message"], "sent *** as ***, ***");
        assert_eq!(
            object["fields"],
            json!({
                "token": "***", "error": "the token *** is wrong", "debug": "(\"***\", \"***\")",
                "number": "***", "flag": "***", "long": "***567"
            })
        );
    }

    #[test]
    fn a_panic_is_a_line_like_any_other() {
        log_panics();
        let events = || {
            let panics = || panic!("the token hunter22\nis wrong");
            assert!(std::panic::catch_unwind(panics).is_err());
        };
        let line = logged(Format::Json, false, &["hunter22"], events);
        let object: Value = serde_json::from_str(&line).expect("it is one object");
        assert_eq!(object["level"], "ERROR");
        assert_eq!(
            object["message"],
            "this is a defect of Lockgate, please report it: it panicked: the token ***\nis wrong"
        );
        let place = object["fields"]["place"].as_str().expect("it has a place");
        assert!(place.starts_with(file!()), "{place}");
    }

    #[test]
    fn a_wrong_filter_is_an_error() {
        let error = init_logging(Format::Text, "info,lockgate=loud", Masks::new())
            .unwrap_err()
            .to_string();
        assert!(
            error.starts_with("`info,lockgate=loud` is not a log filter: "),
            "{error}"
        );
    }
}
