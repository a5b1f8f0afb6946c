//! Log lines as text or JSON, with secrets masked and values cut to a limit.

use std::error::Error;
use std::fmt;
use std::fmt::Write;
use std::time::{SystemTime, UNIX_EPOCH};

use lockgate_model::{Day, LINE_MAX, Masks, escape, logfmt};
use serde::Serialize;
use serde_json::{Map, Value};
use tracing::field::{Field, Visit};
use tracing::{Level, Metadata};

/// The longest value in a line, in bytes. Guests' texts are shorter: they are cut on entry.
const VALUE_MAX: usize = 4 * LINE_MAX;

/// The target of plugins' lines. A plugin chose their messages, so the host's fields come first:
/// otherwise a message could pass for the host's fields.
const PLUGIN: &str = "plugin";

/// The field in which `tracing` keeps an event's message.
const MESSAGE: &str = "message";

/// The fields of an event or a span, in order.
#[derive(Clone, Default)]
pub struct Fields(Vec<(&'static str, Value)>);

impl Fields {
    pub fn extend(&mut self, fields: &Fields) {
        fields
            .0
            .iter()
            .for_each(|(name, value)| self.set(name, value.clone()));
    }

    fn set(&mut self, name: &'static str, value: Value) {
        match self.0.iter_mut().find(|(given, _)| *given == name) {
            Some((_, slot)) => *slot = value,
            None => self.0.push((name, value)),
        }
    }

    /// Masks each value before it is formatted. A number that is a secret becomes a string.
    fn masked(mut self, masks: &Masks) -> Self {
        for (_, value) in &mut self.0 {
            let text = as_text(value);
            let masked = masks.mask(&text);
            if masked != text {
                *value = Value::String(masked.into_owned());
            }
        }
        self
    }

    fn take_message(&mut self) -> String {
        let at = self.0.iter().position(|(name, _)| *name == MESSAGE);
        at.map(|at| as_text(&self.0.remove(at).1))
            .unwrap_or_default()
    }
}

impl Visit for Fields {
    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        self.set(field.name(), format!("{value:?}").into());
    }
    fn record_str(&mut self, field: &Field, value: &str) {
        self.set(field.name(), value.into());
    }
    fn record_i64(&mut self, field: &Field, value: i64) {
        self.set(field.name(), value.into());
    }
    fn record_u64(&mut self, field: &Field, value: u64) {
        self.set(field.name(), value.into());
    }
    fn record_bool(&mut self, field: &Field, value: bool) {
        self.set(field.name(), value.into());
    }
    fn record_f64(&mut self, field: &Field, value: f64) {
        // JSON has no NaN and no infinity.
        self.set(
            field.name(),
            if value.is_finite() {
                value.into()
            } else {
                value.to_string().into()
            },
        );
    }
    fn record_error(&mut self, field: &Field, value: &(dyn Error + 'static)) {
        let mut text = value.to_string();
        let mut source = value.source();
        while let Some(error) = source {
            let _ = write!(text, ": {error}");
            source = error.source();
        }
        self.set(field.name(), text.into());
    }
}

/// One event, ready to be formatted.
pub struct Line<'a> {
    pub time: SystemTime,
    pub metadata: &'a Metadata<'a>,
    pub fields: Fields,
}

impl Line<'_> {
    /// One JSON object and a line feed.
    pub fn json(self, masks: &Masks) -> String {
        #[derive(Serialize)]
        struct Object<'a> {
            timestamp: String,
            level: &'a str,
            target: &'a str,
            message: String,
            fields: Map<String, Value>,
        }
        let (timestamp, level, target) = (
            timestamp(self.time),
            self.metadata.level().as_str(),
            self.metadata.target(),
        );
        let mut fields = self.fields.masked(masks);
        let message = fields.take_message();
        let fields = fields
            .0
            .into_iter()
            .map(|(name, value)| (name.to_owned(), value))
            .collect();
        // Serialising strings and numbers cannot fail.
        serde_json::to_string(&Object {
            timestamp,
            level,
            target,
            message,
            fields,
        })
        .unwrap_or_default()
            + "\n"
    }

    /// For example `2026-11-20T12:00:00.000Z WARN  the receiver is slow pipeline=siem`, and a line
    /// feed. The message of a plugin comes after the fields.
    pub fn text(self, masks: &Masks, colour: bool) -> String {
        let paint = |code: &str, text: &str| {
            if colour {
                format!("\x1b[{code}m{text}\x1b[0m")
            } else {
                text.to_owned()
            }
        };
        let level = *self.metadata.level();
        let code = match level {
            Level::ERROR => "1;31",
            Level::WARN => "33",
            Level::INFO => "32",
            _ => "34",
        };
        let mut line = format!(
            "{} {} ",
            paint("2", &timestamp(self.time)),
            paint(code, &format!("{:5}", level.as_str()))
        );
        // The target is useful only for libraries, not for our own crates.
        if !self.metadata.target().starts_with("lockgate") {
            let _ = write!(line, "{}: ", self.metadata.target());
        }
        let mut fields = self.fields.masked(masks);
        let message = fields.take_message();
        let fields = fields.0.iter().map(|(name, value)| {
            let value = as_text(value);
            let value = logfmt(&value, VALUE_MAX);
            format!("{}{value}", paint("2", &format!("{name}=")))
        });
        let message = escape(&message, VALUE_MAX).into_owned();
        let parts: Vec<String> = if self.metadata.target() == PLUGIN {
            fields.chain([message]).collect()
        } else {
            std::iter::once(message).chain(fields).collect()
        };
        line.push_str(&parts.join(" "));
        line.push('\n');
        // Mask the whole line again: a secret with a space may be split over two fields.
        masks.mask(&line).into_owned()
    }
}

/// The text alone, without JSON's quotes.
fn as_text(value: &Value) -> String {
    match value {
        Value::String(text) => text.clone(),
        value => value.to_string(),
    }
}

/// RFC 3339 in UTC, with milliseconds.
fn timestamp(time: SystemTime) -> String {
    let millis = match time.duration_since(UNIX_EPOCH) {
        Ok(after) => after.as_millis() as i64,
        Err(before) => -(before.duration().as_millis() as i64),
    };
    let day = Day::of(millis);
    let of_day = millis - day.start();
    let (seconds, millis) = (of_day / 1000, of_day % 1000);
    format!(
        "{day}T{:02}:{:02}:{:02}.{millis:03}Z",
        seconds / 3600,
        seconds / 60 % 60,
        seconds % 60
    )
}
