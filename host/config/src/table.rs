//! A table that is read key by key. A key that nothing read is unknown: an issue.

use std::ops::Range;

use toml::de::DeTable;

use crate::issues::Issue;
use crate::quantity::{Bounds, Quantity};
use crate::reading::Reading;
use crate::value::Value;

pub(crate) struct Table<'a> {
    /// The path in messages, such as `pipelines.siem.sink`. Empty: the file.
    pub path: String,
    /// The path with `*` for names that the operator chooses.
    pub pattern: String,
    pub span: Range<usize>,
    pub entries: &'a DeTable<'a>,
    asked: Vec<&'static str>,
    /// Reported by `finish`, unless an unknown key turns out to be a misspelling of the missing
    /// one.
    missing: Vec<(&'static str, Issue)>,
}

impl<'a> Table<'a> {
    pub fn new(
        path: String,
        pattern: String,
        span: Range<usize>,
        entries: &'a DeTable<'a>,
    ) -> Table<'a> {
        Table {
            path,
            pattern,
            span,
            entries,
            asked: Vec::new(),
            missing: Vec::new(),
        }
    }

    pub fn optional(&mut self, key: &'static str) -> Option<Value<'a>> {
        self.asked.push(key);
        let (spanned, node) = self.entries.get_key_value(key)?;
        Some(self.value(key, key, spanned.span(), node))
    }

    /// Where the value of a key stands, if the key is there.
    pub fn span_of(&self, key: &str) -> Option<Range<usize>> {
        self.entries.get(key).map(|value| value.span())
    }

    /// `example`: a correct line.
    pub fn required(&mut self, key: &'static str, example: &str) -> Option<Value<'a>> {
        let value = self.optional(key);
        if value.is_none() {
            let message = format!("{} has no `{key}`.", self.title());
            self.miss(
                key,
                Issue::new(
                    self.span.clone(),
                    message,
                    format!("`{key}` is missing"),
                    format!("add `{example}`"),
                ),
            );
        }
        value
    }

    /// Records that `key` is missing.
    pub fn miss(&mut self, key: &'static str, issue: Issue) {
        self.missing.push((key, issue));
    }

    /// A number within bounds, or the default.
    pub fn quantity<Q: Quantity>(
        &mut self,
        r: &mut Reading<'_>,
        key: &'static str,
        bounds: Bounds<Q>,
    ) -> Q {
        let value = self.optional(key);
        value
            .and_then(|value| value.quantity(r, bounds.least, bounds.most, Some(bounds.default)))
            .unwrap_or(bounds.default)
    }

    /// Entries under names that the operator chooses, in the order of the text.
    pub fn named(&self) -> Vec<Value<'a>> {
        let mut values: Vec<_> = self
            .entries
            .iter()
            .map(|(key, node)| self.value(key.get_ref(), "*", key.span(), node))
            .collect();
        values.sort_by_key(|value| value.key_span.start);
        values
    }

    /// `pipelines.siem.sink` in backticks, or "The file".
    pub fn title(&self) -> String {
        if self.path.is_empty() {
            "The file".into()
        } else {
            format!("`{}`", self.path)
        }
    }

    /// Reports missing and unknown keys.
    pub fn finish(self, r: &mut Reading<'_>) {
        self.finish_with(r, |_| None);
    }

    /// Like `finish`. `hint`: the hint for a key that belongs elsewhere.
    pub fn finish_with(mut self, r: &mut Reading<'_>, hint: impl Fn(&str) -> Option<String>) {
        for (key, _) in self.entries {
            let name = key.get_ref().as_ref();
            if self.asked.contains(&name) {
                continue;
            }
            let hint = hint(name).unwrap_or_else(|| {
                let near = nearest(name, &self.asked);
                self.missing.retain(|(missing, _)| Some(*missing) != near);
                suggest(name, &self.asked)
            });
            let message = match self.path.as_str() {
                "" => format!("Unknown section `{name}`."),
                path => format!("Unknown key `{name}` in `{path}`."),
            };
            r.issue(Issue::new(key.span(), message, "unknown", hint));
        }
        r.issues
            .extend(self.missing.into_iter().map(|(_, issue)| issue));
        let prefix = if self.pattern.is_empty() {
            String::new()
        } else {
            format!("{}.", self.pattern)
        };
        r.known
            .extend(self.asked.iter().map(|key| format!("{prefix}{key}")));
    }

    fn value(
        &self,
        key: &str,
        pattern: &str,
        key_span: Range<usize>,
        node: &'a toml::Spanned<toml::de::DeValue<'a>>,
    ) -> Value<'a> {
        let join = |prefix: &str, key: &str| {
            if prefix.is_empty() {
                key.to_owned()
            } else {
                format!("{prefix}.{key}")
            }
        };
        Value {
            name: key.to_owned(),
            path: join(&self.path, key),
            pattern: join(&self.pattern, pattern),
            key_span,
            node,
        }
    }
}

/// "did you mean" if a known word is near, else all known words.
pub(crate) fn suggest(unknown: &str, known: &[&str]) -> String {
    match nearest(unknown, known) {
        Some(near) => format!("did you mean `{near}`?"),
        None if known.is_empty() => "none is defined".into(),
        None => format!("choose from {}", list(known)),
    }
}

/// "`a`, `b` and `c`".
pub(crate) fn list(words: &[&str]) -> String {
    let quoted: Vec<String> = words.iter().map(|word| format!("`{word}`")).collect();
    match quoted.split_last() {
        Some((last, [])) => last.clone(),
        Some((last, rest)) => format!("{} and {last}", rest.join(", ")),
        None => String::new(),
    }
}

/// The known word that `unknown` may be a misspelling of.
pub(crate) fn nearest<'k>(unknown: &str, known: &[&'k str]) -> Option<&'k str> {
    let plain = |text: &str| text.to_lowercase().replace('_', "-");
    let unknown = plain(unknown);
    let allowed = 1 + unknown.chars().count() / 4;
    let distances = known
        .iter()
        .map(|known| (strsim::damerau_levenshtein(&unknown, &plain(known)), *known));
    // Singular and plural, and a word with a suffix, count as near at any distance.
    let extended = known.iter().find(|known| {
        known.len() >= 3
            && (unknown.starts_with(&plain(known)) || plain(known).starts_with(&*unknown))
            && unknown.len() >= 3
    });
    distances
        .filter(|(distance, _)| *distance <= allowed)
        .min_by_key(|(distance, _)| *distance)
        .map(|(_, known)| known)
        .or(extended.copied())
}

#[cfg(test)]
mod tests {
    use super::nearest;

    #[test]
    fn misspellings_find_their_word() {
        let known = [
            "addr",
            "identity",
            "start-time",
            "window",
            "stage",
            "in-flight",
            "ca",
        ];
        for (unknown, expected) in [
            ("identiy", Some("identity")),
            ("address", Some("addr")),
            ("start_time", Some("start-time")),
            ("stages", Some("stage")),
            ("inflight", Some("in-flight")),
            ("Window", Some("window")),
            ("colour", None),
            ("x", None),
        ] {
            assert_eq!(nearest(unknown, &known), expected, "{unknown}");
        }
    }
}
