//! The parts of the TOML text that must never be shown, even if the text is broken: values where
//! secrets belong, and text that looks like a secret.

use std::ops::Range;

use toml::de::{DeTable, DeValue};

use crate::comments::comments;
use crate::substitution::references;

/// Keys of a sink whose values cannot hold a secret. All other values there are hidden, including
/// those of misspelt keys.
const PLAIN_SINK_KEYS: [&str; 7] = [
    "plugin",
    "rate",
    "timeout",
    "tls",
    "with",
    "allow-plaintext",
    "compression",
];

/// Keys whose values are shown in a text that was not understood, unless a value contains a
/// suspicious word.
#[rustfmt::skip]
pub(crate) const PLAIN_KEYS: [&str; 58] = [
    "addr", "connect", "proxy-ca", "identity", "cert", "ca", "types", "start-time", "window", "overlap", "sweep", "gap-after", // sources
    "keep-own-access", "concurrency", "locks", "enabled", "failed-attempts", "period", "for",
    "path", "retain", "age", "bytes", "audit", "sessions", // the store
    "listen", // the admin listener
    "city", "asn", "user-agents", // look-ups
    "source", "limits", "time", "batch-time", "memory", "reuse", "state", "wasi", // plugins
    "compile", // limits
    "from", "batch", "events", "order", "in-flight", "stage", "dead-letters", "in-a-row", "share", "lag-limit", // pipelines
    "plugin", "rate", "timeout", "tls", "with", "allow-plaintext", "compression", // stages and sinks
    "only", "skip", "where", // the filter
];

/// Sections whose headers are shown in a text that was not understood.
const SECTIONS: [&str; 8] = [
    "teleport",
    "sources",
    "store",
    "limits",
    "admin",
    "lookup",
    "plugins",
    "pipelines",
];

/// Parts of keys whose values are hidden everywhere.
const SECRET_WORDS: [&str; 7] = [
    "passw",
    "secret",
    "token",
    "bearer",
    "credential",
    "api-key",
    "api_key",
];

/// Keys whose values are hidden outside `with`: they belong in a sink, but may have been put
/// elsewhere.
const SINK_WORDS: [&str; 3] = ["auth", "header", "url"];

/// For a text that was understood: the values of keys that hold secrets. `${env:…}` and
/// `${file:…}` in them stay visible.
pub(crate) fn by_key(text: &str, root: &DeTable<'_>) -> Vec<Range<usize>> {
    let mut hidden = Vec::new();
    for (key, value) in root {
        let pipelines = key.get_ref() == "pipelines";
        walk(
            text,
            value.get_ref(),
            &value.span(),
            if pipelines {
                Place::Pipelines
            } else {
                Place::of_key(key.get_ref())
            },
            &mut hidden,
        );
    }
    // A secret may have been commented out.
    hidden.extend(comments(text).into_iter().filter(|comment| {
        let comment = text[comment.clone()].to_ascii_lowercase();
        comment.contains(['=', '"', '\'']) || is_suspicious(&comment)
    }));
    hidden
}

/// For a text that was not understood: all values except those of keys that cannot hold a secret,
/// and of the lines that continue these.
pub(crate) fn by_line(text: &str) -> Vec<Range<usize>> {
    let mut hidden = Vec::new();
    let mut start = 0;
    let mut plain = false;
    for line in text.split_inclusive('\n') {
        let content = line.trim_end();
        let lower = content.trim_start().to_ascii_lowercase();
        // A missing line break may have joined two lines.
        let merged = lower.matches('=').count() > 1 && !lower.contains('{');
        let suspicious = merged || is_suspicious(&lower);
        let comment = content.find('#').unwrap_or(content.len());
        // A bare key and its `=` are always shown.
        let (key, value) = match content.split_once('=') {
            Some((key, _)) if is_bare(key) => (key.trim(), key.len() + 1),
            _ => ("", 0),
        };
        if SECTIONS
            .iter()
            .any(|name| lower.trim_start_matches(['[', ' ']).starts_with(name))
            && lower.starts_with('[')
            && !lower.contains('=')
        {
            plain = false;
            let quoted = content.find(['"', '\'']).unwrap_or(content.len());
            hidden.push(start + quoted..start + content.len());
        } else if !lower.is_empty() {
            if content.contains('=') {
                plain = PLAIN_KEYS.contains(&key);
            }
            // The lines that continue a suspicious line are suspicious, too.
            plain &= !suspicious;
            if !plain {
                let value = value + content[value..].len() - content[value..].trim_start().len();
                hidden.push(start + value..start + content.len());
            }
        }
        hidden.push(start + comment..start + content.len());
        start += line.len();
    }
    hidden
}

/// `text`: in lower case.
fn is_suspicious(text: &str) -> bool {
    SECRET_WORDS
        .iter()
        .chain(&SINK_WORDS)
        .chain(&["://", "-----begin"])
        .any(|word| text.contains(word))
}

fn is_bare(key: &str) -> bool {
    key.trim()
        .chars()
        .all(|c| c.is_alphanumeric() || "-_.".contains(c))
}

#[derive(Clone, Copy, PartialEq)]
enum Place {
    Elsewhere,
    Pipelines,
    Pipeline,
    Sink,
    With,
    Hidden,
    /// Hidden, but for the scheme.
    Url,
}

impl Place {
    fn of_key(key: &str) -> Place {
        let lower = key.to_ascii_lowercase();
        let holds = |words: &[&str]| words.iter().any(|word| lower.contains(word));
        if holds(&SECRET_WORDS) || holds(&SINK_WORDS) {
            Place::Hidden
        } else {
            Place::Elsewhere
        }
    }

    /// The place of the value of `key` in a table at this place.
    fn below(self, key: &str) -> Place {
        match self {
            Place::Hidden | Place::Url => Place::Hidden,
            Place::Pipelines => Place::Pipeline,
            Place::Pipeline if key == "sink" => Place::Sink,
            // Names, not values.
            Place::Sink if key == "allow-headers" => Place::Elsewhere,
            Place::Sink if ["url", "session-url"].contains(&key) => Place::Url,
            Place::Sink if !PLAIN_SINK_KEYS.contains(&key) => Place::Hidden,
            Place::With => {
                let lower = key.to_ascii_lowercase();
                if SECRET_WORDS.iter().any(|word| lower.contains(word)) {
                    Place::Hidden
                } else {
                    Place::With
                }
            }
            _ if key == "with" => Place::With,
            _ => Place::of_key(key),
        }
    }
}

fn walk(
    text: &str,
    value: &DeValue<'_>,
    span: &Range<usize>,
    place: Place,
    hidden: &mut Vec<Range<usize>>,
) {
    match value {
        DeValue::Table(table) => {
            for (key, value) in table {
                walk(
                    text,
                    value.get_ref(),
                    &value.span(),
                    place.below(key.get_ref()),
                    hidden,
                );
            }
        }
        DeValue::Array(array) => {
            for value in array.iter() {
                walk(text, value.get_ref(), &value.span(), place, hidden);
            }
        }
        // The key itself, in PEM, where its path belongs.
        DeValue::String(content) if content.contains("-----BEGIN") => hidden.push(span.clone()),
        DeValue::String(_) if place == Place::Hidden => hidden.extend(literal_parts(text, span)),
        DeValue::String(_) if place == Place::Url => {
            let mut parts = literal_parts(text, span);
            if let Some(first) = parts.first_mut() {
                first.start += scheme(&text[first.clone()]);
            }
            hidden.extend(parts);
        }
        _ if [Place::Hidden, Place::Url].contains(&place) => hidden.push(span.clone()),
        _ => {}
    }
}

/// The parts of a string literal that are neither its quotes nor references.
fn literal_parts(text: &str, span: &Range<usize>) -> Vec<Range<usize>> {
    let Some(raw) = text.get(span.clone()) else {
        return vec![];
    };
    let quotes = ["\"\"\"", "'''", "\"", "'"]
        .into_iter()
        .find(|quotes| raw.starts_with(quotes))
        .map_or(0, str::len);
    let (mut at, end) = (
        span.start + quotes,
        (span.end - quotes).max(span.start + quotes),
    );
    let mut parts = Vec::new();
    for reference in references(raw) {
        parts.push(at..(span.start + reference.start).clamp(at, end));
        at = (span.start + reference.end).clamp(at, end);
    }
    parts.push(at..end);
    parts
}

/// The length of the scheme of a URL and what follows up to the host, misspelt or not. The host
/// stays hidden: if the slash after it is missing, a token in the path is a part of it.
fn scheme(url: &str) -> usize {
    let letters = url.bytes().take_while(u8::is_ascii_alphabetic).count();
    let (name, rest) = url.split_at(letters);
    let name = name.to_ascii_lowercase();
    let is_near = |known: &&str| strsim::damerau_levenshtein(&name, known) <= 2;
    let separators = rest.bytes().take_while(|byte| b":/".contains(byte)).count();
    if separators > 0 && letters <= 7 && ["http", "https"].iter().any(is_near) {
        letters + separators
    } else {
        0
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::document::Document;

    fn shown(text: &str, hidden: Vec<Range<usize>>) -> String {
        Document::new("", text, hidden)
            .excerpt(&(0..text.len()))
            .text
    }

    #[test]
    fn values_that_may_be_secrets_are_hidden() {
        for (text, expected) in [
            (
                "[pipelines.a.sink]\nurl = \"https://x/${env:T}?k=v\"\nplugin = \"p\"",
                "[pipelines.a.sink]\nurl = \"https://***${env:T}***\"\nplugin = \"p\"",
            ),
            (
                "pipelines.a.sink.auth = { basic = { user = 'u', pasword = 1234 } }",
                "pipelines.a.sink.auth = { basic = { user = '***', pasword = *** } }",
            ),
            (
                "[pipelines.a.sink]\npw = \"x\"",
                "[pipelines.a.sink]\npw = \"***\"",
            ),
            (
                "[pipelines.a.sink.headers]\nx = \"\"\"a\nb\"\"\"",
                "[pipelines.a.sink.headers]\nx = \"\"\"***\"\"\"",
            ),
            (
                "[pipelines.a]\nauth.bearer = \"b\"",
                "[pipelines.a]\nauth.bearer = \"***\"",
            ),
            (
                "[teleport]\nidentity = \"-----BEGIN PRIVATE KEY-----\"\ntypes = \"a\"",
                "[teleport]\nidentity = ***\ntypes = \"a\"",
            ),
            (
                "[pipelines.a.sink]\nurl = 'htps:/x'\nsession-url = \"token:x\"",
                "[pipelines.a.sink]\nurl = 'htps:/***'\nsession-url = \"***\"",
            ),
            (
                "[pipelines.a.sink]\nurl = [\"https\", \"${env:T}://x\", { https = \"https://x\" }, 7]",
                "[pipelines.a.sink]\nurl = [\"***\", \"${env:T}***\", { https = \"***\" }, ***]",
            ),
            (
                "[[pipelines.a.stage]]\nwith = { url = \"a\", password = \"b\" }",
                "[[pipelines.a.stage]]\nwith = { url = \"a\", password = \"***\" }",
            ),
        ] {
            let (root, _) = DeTable::parse_recoverable(text);
            assert_eq!(shown(text, by_key(text, root.get_ref())), expected);
        }
    }

    #[test]
    fn broken_lines_that_may_hold_a_secret_are_hidden() {
        for (text, expected) in [
            ("password = \"hunter2", "password = ***"),
            (
                "auth = {\n  bearer = hunter2\n  x\n}\n[store]\npath = a",
                "auth = ***\n  bearer = ***\n  ***\n***\n[store]\npath = a",
            ),
            (
                "[admin]\nlisten = 127.0.0.1:8686\n[store]\npath = a",
                "[admin]\nlisten = 127.0.0.1:8686\n[store]\npath = a",
            ),
            (
                "[admin]\nlisten = 127.0.0.1:8686\ntoken = hunter2",
                "[admin]\nlisten = 127.0.0.1:8686\ntoken = ***",
            ),
            (
                "[pipelines.a.sink.headers]\nx-a = \"b\n[store]\npath = a",
                "[pipelines.a.sink.headers]\nx-a = ***\n[store]\npath = a",
            ),
        ] {
            assert_eq!(shown(text, by_line(text)), expected);
        }
    }
}
