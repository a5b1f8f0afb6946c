//! Texts with placeholders for the metadata of a document, such as `logs-{event-type}`.
//!
//! | Placeholder | Stands for | As JSON |
//! |---|---|---|
//! | `{key}` | the key of the document, the same in each retry | text |
//! | `{event-type}` | such as `session.start` | text |
//! | `{code}` | such as `T2000I`; empty if Teleport gives none | text |
//! | `{index}` | the event's index in its session | number |
//! | `{feed}` | `audit` or `session` | text |
//! | `{session}` | the id of the session; empty if the event has none | text or `null` |
//! | `{time}` | the event's time, RFC 3339, UTC | text |
//! | `{time-ms}` | the same in milliseconds since 1970 | number |
//! | `{time-s}` | the same in seconds, with three decimals | number |
//! | `{date}`, `{hour}` | `2026-01-05` and `08` of that time | text |
//! | `{attributes.NAME}` | what a mapper attached; empty if it did not | text or `null` |
//!
//! A `{` that no lower-case letter follows is an ordinary character, so JSON can be written as it
//! is; `{{` stands for a `{` that one follows.
//!
//! ```
//! use lockgate_plugin::{template::Template, test};
//!
//! let template: Template = "teleport-{event-type}-{date}".parse().unwrap();
//! let document = test::document(r#"{"uid":"1","event":"user.login"}"#);
//! assert_eq!(template.render(&document), "teleport-user.login-2026-01-05");
//! ```

use std::borrow::Cow;
use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Deserializer, de};

use crate::time::Rfc3339;
use crate::{Document, json};

/// A text with placeholders. Deserialises from a text of the configuration.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Template {
    pieces: Vec<Piece>,
}

/// A part of a [`Template`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Piece {
    Text(String),
    Field(Field),
    /// One of the plugin's own placeholders, by its position in the list of [`Template::with`], and
    /// what follows its name.
    Own(usize, String),
}

/// What a placeholder stands for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Field {
    Key,
    EventType,
    Code,
    Index,
    Feed,
    Session,
    Time,
    Millis,
    Seconds,
    Date,
    Hour,
    Attribute(String),
}

const NAMES: [(&str, Field); 11] = [
    ("key", Field::Key),
    ("event-type", Field::EventType),
    ("code", Field::Code),
    ("index", Field::Index),
    ("feed", Field::Feed),
    ("session", Field::Session),
    ("time", Field::Time),
    ("time-ms", Field::Millis),
    ("time-s", Field::Seconds),
    ("date", Field::Date),
    ("hour", Field::Hour),
];
const ATTRIBUTES: &str = "attributes.";

/// A placeholder that cannot be used.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TemplateError(String);

impl fmt::Display for TemplateError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for TemplateError {}

// === impl Template ===

impl Template {
    /// Parses a text that may have placeholders of the plugin's own, too. A name that ends in `.`
    /// stands for all that begin so: with `payload.`, `{payload.user}` is one.
    pub fn with(text: &str, own: &[&str]) -> Result<Template, TemplateError> {
        let mut pieces = vec![];
        let mut literal = String::new();
        let mut rest = text;
        while let Some(at) = rest.find('{') {
            literal.push_str(&rest[..at]);
            rest = &rest[at + 1..];
            if let Some(after) = rest.strip_prefix('{')
                && after.starts_with(|next: char| next.is_ascii_lowercase())
            {
                literal.push('{');
                rest = after;
                continue;
            }
            if !rest.starts_with(|next: char| next.is_ascii_lowercase()) {
                literal.push('{');
                continue;
            }
            let Some(end) = rest.find('}') else {
                return Err(TemplateError(format!("`{{{rest}` has no `}}`")));
            };
            if !literal.is_empty() {
                pieces.push(Piece::Text(std::mem::take(&mut literal)));
            }
            pieces.push(placeholder(&rest[..end], own)?);
            rest = &rest[end + 1..];
        }
        literal.push_str(rest);
        if !literal.is_empty() {
            pieces.push(Piece::Text(literal));
        }
        Ok(Template { pieces })
    }

    pub fn pieces(&self) -> &[Piece] {
        &self.pieces
    }

    /// Whether the text is the same for all documents.
    pub fn is_constant(&self) -> bool {
        let mut pieces = self.pieces.iter();
        pieces.all(|piece| matches!(piece, Piece::Text(_)))
    }

    /// What is the same for all documents, piece by piece.
    pub fn literals(&self) -> impl Iterator<Item = &str> {
        self.pieces.iter().filter_map(|piece| match piece {
            Piece::Text(text) => Some(text.as_str()),
            Piece::Field(_) | Piece::Own(..) => None,
        })
    }

    /// The placeholders for metadata.
    pub fn fields(&self) -> impl Iterator<Item = &Field> {
        self.pieces.iter().filter_map(|piece| match piece {
            Piece::Field(field) => Some(field),
            Piece::Text(_) | Piece::Own(..) => None,
        })
    }

    /// The text for a document, without the plugin's own placeholders.
    pub fn render(&self, document: &Document) -> String {
        self.render_with(document, |out, value| out.push_str(value))
    }

    /// The same, with a function that writes the values of the placeholders.
    pub fn render_with(
        &self,
        document: &Document,
        mut write: impl FnMut(&mut String, &str),
    ) -> String {
        let mut out = String::new();
        for piece in &self.pieces {
            match piece {
                Piece::Text(text) => out.push_str(text),
                Piece::Field(field) => write(&mut out, &field.text(document)),
                Piece::Own(..) => {}
            }
        }
        out
    }
}

impl FromStr for Template {
    type Err = TemplateError;

    fn from_str(text: &str) -> Result<Template, TemplateError> {
        Template::with(text, &[])
    }
}

impl<'de> Deserialize<'de> for Template {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Template, D::Error> {
        let text = String::deserialize(deserializer)?;
        text.parse().map_err(de::Error::custom)
    }
}

fn placeholder(name: &str, own: &[&str]) -> Result<Piece, TemplateError> {
    for (at, known) in own.iter().enumerate() {
        match name.strip_prefix(known) {
            Some(rest) if known.ends_with('.') != rest.is_empty() => {
                return Ok(Piece::Own(at, rest.to_owned()));
            }
            _ => {}
        }
    }
    if let Some(attribute) = name.strip_prefix(ATTRIBUTES).filter(|it| !it.is_empty()) {
        return Ok(Piece::Field(Field::Attribute(attribute.to_owned())));
    }
    let known = NAMES.iter().find(|(known, _)| *known == name);
    known
        .map(|(_, field)| Piece::Field(field.clone()))
        .ok_or_else(|| {
            let known = NAMES.iter().map(|(known, _)| *known);
            let own = own.iter().map(|own| match own.ends_with('.') {
                true => format!("{own}NAME"),
                false => (*own).to_owned(),
            });
            let known: Vec<String> = own.chain(known.map(str::to_owned)).collect();
            TemplateError(format!(
                "unknown placeholder `{{{name}}}`; there are `{{{}}}` and `{{attributes.NAME}}`",
                known.join("}`, `{")
            ))
        })
}

// === impl Field ===

impl Field {
    /// The value as text.
    pub fn text<'a>(&self, document: &'a Document) -> Cow<'a, str> {
        match self {
            Field::Key => document.key.as_str().into(),
            Field::EventType => document.event_type.as_str().into(),
            Field::Code => document.code.as_str().into(),
            Field::Index => document.index.to_string().into(),
            Field::Feed => document.feed.as_str().into(),
            Field::Session => document.session.as_deref().unwrap_or_default().into(),
            Field::Time => Rfc3339(document.time).to_string().into(),
            Field::Millis => document.time.to_string().into(),
            Field::Seconds => seconds(document.time).into(),
            Field::Date => Rfc3339(document.time).to_string()[..10].to_owned().into(),
            Field::Hour => Rfc3339(document.time).to_string()[11..13].to_owned().into(),
            Field::Attribute(name) => attribute(document, name).unwrap_or_default().into(),
        }
    }

    /// Appends the value as JSON.
    pub fn write_json(&self, out: &mut String, document: &Document) {
        let is_null = match self {
            Field::Index | Field::Millis | Field::Seconds => {
                out.push_str(&self.text(document));
                return;
            }
            Field::Session => document.session.is_none(),
            Field::Attribute(name) => attribute(document, name).is_none(),
            _ => false,
        };
        if is_null {
            out.push_str("null");
        } else {
            json::write_text(out, &self.text(document));
        }
    }
}

fn attribute<'a>(document: &'a Document, name: &str) -> Option<&'a str> {
    let mut pairs = document.attributes.iter();
    pairs
        .find(|pair| pair.name == name)
        .map(|pair| pair.value.as_str())
}

fn seconds(millis: i64) -> String {
    let sign = if millis < 0 { "-" } else { "" };
    let millis = millis.unsigned_abs();
    format!("{sign}{}.{:03}", millis / 1000, millis % 1000)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Pair, test};

    fn document() -> Document {
        let mut document =
            test::document(r#"{"uid":"a\"b","event":"session.start","code":"T2000I"}"#);
        document.attributes.push(Pair::new("tenant", "blue"));
        document.time += 7;
        document
    }

    #[test]
    fn placeholders_stand_for_metadata_and_other_braces_for_themselves() {
        for (template, text) in [
            ("", ""),
            ("plain", "plain"),
            ("{event-type}/{code}", "session.start/T2000I"),
            ("{key}", "a\"b"),
            ("{date}T{hour}", "2026-01-05T08"),
            (
                "{time} {time-ms} {time-s}",
                "2026-01-05T08:00:00.007Z 1767600000007 1767600000.007",
            ),
            ("{attributes.tenant}|{attributes.other}|{session}", "blue||"),
            ("{\"a\": {}, \"b\": {{x} } {", "{\"a\": {}, \"b\": {x} } {"),
            ("{feed}{index}", "audit0"),
        ] {
            let parsed: Template = template.parse().unwrap();
            assert_eq!(parsed.render(&document()), text, "{template}");
        }
    }

    #[test]
    fn a_misspelt_placeholder_is_refused_with_the_known_ones() {
        let error = "{event-typ}".parse::<Template>().unwrap_err().to_string();
        assert!(
            error.starts_with(
                "unknown placeholder `{event-typ}`; there are `{key}`, `{event-type}`"
            ) && error.ends_with("and `{attributes.NAME}`"),
            "{error}"
        );
        let error = "a{key".parse::<Template>().unwrap_err().to_string();
        assert_eq!(error, "`{key` has no `}`");
        assert!("{attributes.}".parse::<Template>().is_err());
    }

    #[test]
    fn values_are_written_as_json_of_their_kind() {
        let json = |text: &str| {
            let template: Template = text.parse().unwrap();
            let mut out = String::new();
            for piece in template.pieces() {
                let Piece::Field(field) = piece else {
                    panic!("{piece:?}")
                };
                field.write_json(&mut out, &document());
                out.push(' ');
            }
            out
        };
        assert_eq!(
            json("{key}{index}{session}{attributes.tenant}{time-s}"),
            "\"a\\\"b\" 0 null \"blue\" 1767600000.007 "
        );
        assert_eq!(seconds(-1), "-0.001");
    }
}
