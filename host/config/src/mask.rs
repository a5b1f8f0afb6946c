//! Which parts of the TOML text must never be shown, even where it is wrong: whatever stands where secrets belong, or looks like one.

use std::ops::Range;

use toml::de::{DeTable, DeValue};

use crate::substitution::references;

/// Keys of a sink whose values cannot hold a secret. Everything else there is hidden, also what is misspelt.
const PLAIN_SINK_KEYS: [&str; 5] = ["plugin", "rate", "timeout", "tls", "with"];

/// Parts of keys whose values are hidden wherever they stand.
const SECRET_WORDS: [&str; 7] = ["passw", "secret", "token", "bearer", "credential", "api-key", "api_key"];

/// Keys whose values are hidden outside of `with`: they belong into a sink, and may have been put elsewhere.
const SINK_WORDS: [&str; 3] = ["auth", "header", "url"];

/// Where the text was understood: the values at keys that hold secrets. `${env:…}` and `${file:…}` in them stay visible.
pub(crate) fn by_key(text: &str, root: &DeTable<'_>) -> Vec<Range<usize>> {
    let mut hidden = Vec::new();
    for (key, value) in root {
        let pipelines = key.get_ref() == "pipelines";
        walk(text, value.get_ref(), &value.span(), if pipelines { Place::Pipelines } else { Place::of_key(key.get_ref()) }, &mut hidden);
    }
    hidden
}

/// Where the text was not understood: everything after the `=` of a line that may hold a secret, and the lines that continue it.
pub(crate) fn by_line(text: &str) -> Vec<Range<usize>> {
    let mut hidden = Vec::new();
    let mut section = false;
    let mut continued = false;
    let mut start = 0;
    for line in text.split_inclusive('\n') {
        let content = line.trim_end();
        let is_header = content.trim_start().starts_with('[') && !content.contains('=');
        let key = content.split('=').next().unwrap_or_default().to_ascii_lowercase();
        if is_header {
            section = key.contains("auth") || key.contains("header");
            continued = false;
        } else {
            let lower = content.to_ascii_lowercase();
            let own = SECRET_WORDS.iter().chain(&SINK_WORDS).any(|word| lower.contains(word)) || lower.contains("-----begin");
            if section || continued || own {
                let from = content.find('=').map_or(if continued || own { 0 } else { content.len() }, |equals| equals + 1);
                let from = from + content[from..].len() - content[from..].trim_start().len();
                hidden.push(start + from..start + content.len());
            }
            continued |= own && (content.contains('{') || content.contains("\"\"\"") || content.contains("'''"));
        }
        start += line.len();
    }
    hidden
}

#[derive(Clone, Copy, PartialEq)]
enum Place {
    Elsewhere,
    Pipelines,
    Pipeline,
    Sink,
    With,
    Hidden,
}

impl Place {
    fn of_key(key: &str) -> Place {
        let lower = key.to_ascii_lowercase();
        let holds = |words: &[&str]| words.iter().any(|word| lower.contains(word));
        if holds(&SECRET_WORDS) || holds(&SINK_WORDS) { Place::Hidden } else { Place::Elsewhere }
    }

    /// The place of what stands at `key` in a table at this place.
    fn below(self, key: &str) -> Place {
        match self {
            Place::Hidden => Place::Hidden,
            Place::Pipelines => Place::Pipeline,
            Place::Pipeline if key == "sink" => Place::Sink,
            Place::Sink if !PLAIN_SINK_KEYS.contains(&key) => Place::Hidden,
            Place::With => {
                let lower = key.to_ascii_lowercase();
                if SECRET_WORDS.iter().any(|word| lower.contains(word)) { Place::Hidden } else { Place::With }
            }
            _ if key == "with" => Place::With,
            _ => Place::of_key(key),
        }
    }
}

fn walk(text: &str, value: &DeValue<'_>, span: &Range<usize>, place: Place, hidden: &mut Vec<Range<usize>>) {
    match value {
        DeValue::Table(table) => {
            for (key, value) in table {
                walk(text, value.get_ref(), &value.span(), place.below(key.get_ref()), hidden);
            }
        }
        DeValue::Array(array) => {
            for value in array.iter() {
                walk(text, value.get_ref(), &value.span(), place, hidden);
            }
        }
        // A key in PEM put where its path belongs.
        DeValue::String(content) if content.contains("-----BEGIN") => hidden.push(span.clone()),
        DeValue::String(_) if place == Place::Hidden => hidden.extend(literal_parts(text, span)),
        _ if place == Place::Hidden => hidden.push(span.clone()),
        _ => {}
    }
}

/// The parts of a string literal that are neither its quotes nor references.
fn literal_parts(text: &str, span: &Range<usize>) -> Vec<Range<usize>> {
    let Some(raw) = text.get(span.clone()) else { return vec![] };
    let quotes = ["\"\"\"", "'''", "\"", "'"].into_iter().find(|quotes| raw.starts_with(quotes)).map_or(0, str::len);
    let (mut at, end) = (span.start + quotes, (span.end - quotes).max(span.start + quotes));
    let mut parts = Vec::new();
    for reference in references(raw) {
        parts.push(at..(span.start + reference.start).clamp(at, end));
        at = (span.start + reference.end).clamp(at, end);
    }
    parts.push(at..end);
    parts
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::document::Document;

    fn shown(text: &str, hidden: Vec<Range<usize>>) -> String {
        Document::new("", text, hidden).excerpt(&(0..text.len())).text
    }

    #[test]
    fn what_may_be_a_secret_is_hidden() {
        for (text, expected) in [
            (
                "[pipelines.a.sink]\nurl = \"https://x/${env:T}?k=v\"\nplugin = \"p\"",
                "[pipelines.a.sink]\nurl = \"***${env:T}***\"\nplugin = \"p\"",
            ),
            (
                "pipelines.a.sink.auth = { basic = { user = 'u', pasword = 1234 } }",
                "pipelines.a.sink.auth = { basic = { user = '***', pasword = *** } }",
            ),
            ("[pipelines.a.sink]\npw = \"x\"", "[pipelines.a.sink]\npw = \"***\""),
            ("[pipelines.a.sink.headers]\nx = \"\"\"a\nb\"\"\"", "[pipelines.a.sink.headers]\nx = \"\"\"***\"\"\""),
            ("[pipelines.a]\nauth.bearer = \"b\"", "[pipelines.a]\nauth.bearer = \"***\""),
            ("[teleport]\nidentity = \"-----BEGIN PRIVATE KEY-----\"\ntypes = \"a\"", "[teleport]\nidentity = ***\ntypes = \"a\""),
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
            ("auth = {\n  bearer = hunter2\n  x\n}\n[store]\npath = a", "auth = ***\n  bearer = ***\n  ***\n***\n[store]\npath = a"),
            ("[p.sink.headers]\nx-a = \"b\n[store]\npath = a", "[p.sink.headers]\nx-a = ***\n[store]\npath = a"),
        ] {
            assert_eq!(shown(text, by_line(text)), expected);
        }
    }
}
