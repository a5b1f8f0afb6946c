//! Parses the operator's configuration into a type, or returns every problem with its place.

use serde::de::DeserializeOwned;
use serde_json::{Map, Value};
use serde_path_to_error::{Path, Segment};

use crate::ConfigIssue;

/// Parses a `with` table. Each problem names its key and the expected value in terms of the
/// configuration, and if possible suggests a correct line. Problems in different keys are reported
/// together.
pub fn parse<C: DeserializeOwned>(with: &str) -> Result<C, Vec<ConfigIssue>> {
    if !with.trim_start().starts_with('{') {
        return Err(vec![ConfigIssue::new(
            "",
            "the configuration must be a table.",
        )]); // serde would take a list for a struct's fields
    }
    let first = match attempt(with) {
        Ok(config) => return Ok(config),
        Err(problem) => problem,
    };
    let Ok(Value::Object(mut table)) = serde_json::from_str::<Value>(with) else {
        return Err(vec![first.issue(None)]);
    };

    // serde stops at the first problem. So the faulty key is removed, and the rest is parsed again.
    let mut issues = vec![first.issue(Some(&table))];
    let mut removed = vec![];
    let mut problem = first;
    while let Some(key) = problem.key.take().filter(|key| table.remove(key).is_some()) {
        removed.push(key);
        problem = match attempt::<C>(&Value::Object(table.clone()).to_string()) {
            Ok(_) => break,
            Err(problem) => problem,
        };
        if !removed
            .iter()
            .any(|key| problem.message.contains(&format!("missing field `{key}`")))
        {
            issues.push(problem.issue(Some(&table)));
        }
    }
    Err(issues)
}

/// Appends a key to a dotted path. A key that is not a bare TOML key is quoted:
/// `where."server_labels.env"`.
pub fn join(path: &str, key: &str) -> String {
    let bare = !key.is_empty()
        && key
            .bytes()
            .all(|byte| byte.is_ascii_alphanumeric() || b"_-".contains(&byte));
    let key = if bare {
        key.to_owned()
    } else {
        Value::from(key).to_string()
    };
    if path.is_empty() {
        key
    } else {
        format!("{path}.{key}")
    }
}

/// serde's message, and its path.
struct Problem {
    path: String,
    /// The faulty key of the table.
    key: Option<String>,
    message: String,
}

fn attempt<C: DeserializeOwned>(with: &str) -> Result<C, Problem> {
    let mut reader = serde_json::Deserializer::from_str(with);
    serde_path_to_error::deserialize(&mut reader).map_err(|error| {
        let message = error.inner().to_string();
        let end = message.rfind(" at line ").unwrap_or(message.len());
        Problem {
            path: dotted(error.path()),
            key: first_key(error.path()),
            message: message[..end].to_owned(),
        }
    })
}

fn dotted(path: &Path) -> String {
    path.iter()
        .fold(String::new(), |path, segment| match segment {
            Segment::Map { key } | Segment::Enum { variant: key } => join(&path, key),
            Segment::Seq { index } => format!("{path}[{index}]"),
            Segment::Unknown => path,
        })
}

fn first_key(path: &Path) -> Option<String> {
    match path.iter().next() {
        Some(Segment::Map { key }) => Some(key.clone()),
        _ => None,
    }
}

// === impl Problem ===

impl Problem {
    fn issue(&self, table: Option<&Map<String, Value>>) -> ConfigIssue {
        let (message, help) = self.reword(table);
        let issue = ConfigIssue::new(self.path.as_str(), message);
        match help {
            Some(help) => issue.help(help),
            None => issue,
        }
    }

    /// Rewords serde's message (de.rs of serde_core) for operators.
    fn reword(&self, table: Option<&Map<String, Value>>) -> (String, Option<String>) {
        let name = if self.path.is_empty() {
            "the configuration".into()
        } else {
            format!("`{}`", self.path)
        };
        if let Some(rest) = self.message.strip_prefix("unknown field `")
            && let Some((field, known)) = rest.split_once("`, ")
        {
            let known: Vec<&str> = known.split('`').skip(1).step_by(2).collect();
            let help = match nearest(field, &known) {
                Some(near) => Some(format!("did you mean `{near}`?")),
                None if known.is_empty() => None,
                None => Some(format!("known keys: {}", known.join(", "))),
            };
            return (format!("Unknown key `{field}`."), help);
        }
        if let Some(field) = self.message.strip_prefix("missing field `") {
            return (format!("`{field} is missing."), None);
        }
        if let Some(rest) = self.message.strip_prefix("unknown variant `")
            && let Some((variant, known)) = rest.split_once("`, ")
        {
            let known: Vec<&str> = known.split('`').skip(1).step_by(2).collect();
            let help = nearest(variant, &known).map(|near| format!("did you mean `{near}`?"));
            return (
                format!("{name} is `{variant}`; it can be {}.", alternatives(&known)),
                help,
            );
        }
        for opening in ["invalid type: ", "invalid value: "] {
            if let Some(rest) = self.message.strip_prefix(opening)
                && let Some((found, expected)) = rest.split_once(", expected ")
            {
                let expected = kind(expected);
                let help = (expected == "a list").then(|| self.listed(table)).flatten();
                return (
                    format!("{name} must be {expected}, not {}.", kind(found)),
                    help,
                );
            }
        }
        (format!("{name}: {}.", self.message), None)
    }

    /// The correct line, if there is one value in place of a list.
    fn listed(&self, table: Option<&Map<String, Value>>) -> Option<String> {
        let key = self.key.as_ref().filter(|key| join("", key) == self.path)?;
        let value = table?.get(key)?;
        (!value.is_object() && !value.is_null())
            .then(|| format!("write `{} = [{value}]`", self.path))
    }
}

/// serde's name of a type, reworded for operators.
fn kind(text: &str) -> String {
    let text = text.trim();
    match text {
        "a sequence" | "sequence" => "a list".into(),
        "a map" | "map" => "a table".into(),
        "a boolean" => "true or false".into(),
        "a string" => "a string".into(),
        "null" => "empty".into(),
        "u8" | "u16" | "u32" | "u64" | "usize" => "a whole number that is not negative".into(),
        "a nonzero u8" | "a nonzero u16" | "a nonzero u32" | "a nonzero u64"
        | "a nonzero usize" => "a whole number above 0".into(),
        "i8" | "i16" | "i32" | "i64" | "isize" => "a whole number".into(),
        _ if text.starts_with("struct ") => "a table".into(),
        _ => match text.split_once(' ') {
            Some(("string", quoted)) => format!("the string {}", quoted.replace('"', "`")),
            Some(("integer" | "floating" | "boolean", value)) => {
                value.trim_start_matches("point ").to_owned()
            }
            _ => text.to_owned(),
        },
    }
}

fn alternatives(known: &[&str]) -> String {
    let quoted: Vec<String> = known.iter().map(|name| format!("`{name}`")).collect();
    match quoted.split_last() {
        Some((last, rest)) if !rest.is_empty() => format!("{} or {last}", rest.join(", ")),
        _ => quoted.concat(),
    }
}

/// The name that was probably meant: at most a third of its letters differ.
fn nearest<'a>(name: &str, known: &[&'a str]) -> Option<&'a str> {
    let distances = known
        .iter()
        .map(|candidate| (distance(name, candidate), *candidate));
    distances
        .filter(|(distance, candidate)| *distance <= candidate.len().max(3) / 3)
        .min()
        .map(|(_, candidate)| candidate)
}

/// Letters to insert, remove or replace (Levenshtein).
fn distance(a: &str, b: &str) -> usize {
    let b: Vec<char> = b.chars().collect();
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, from) in a.chars().enumerate() {
        let mut diagonal = row[0];
        row[0] = i + 1;
        for (j, to) in b.iter().enumerate() {
            let replaced = diagonal + usize::from(from != *to);
            diagonal = row[j + 1];
            row[j + 1] = replaced.min(diagonal + 1).min(row[j] + 1);
        }
    }
    row[b.len()]
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::num::NonZeroU32;

    use serde::Deserialize;

    use super::*;

    #[derive(Debug, Deserialize)]
    #[serde(rename_all = "kebab-case")]
    #[allow(dead_code)]
    enum Format {
        Array,
        Object,
    }

    #[derive(Debug, Deserialize)]
    #[serde(deny_unknown_fields, rename_all = "kebab-case")]
    #[allow(dead_code)]
    struct Config {
        skip: Vec<String>,
        #[serde(default)]
        max_events: Option<NonZeroU32>,
        #[serde(default)]
        format: Option<Format>,
        #[serde(default)]
        r#where: BTreeMap<String, Vec<String>>,
        #[serde(default)]
        dry: bool,
    }

    fn check(with: &str, expected: &[(&str, &str, Option<&str>)]) {
        let issues = parse::<Config>(with).map(|_| ()).unwrap_err();
        let found: Vec<_> = issues
            .iter()
            .map(|issue| {
                (
                    issue.path.as_str(),
                    issue.message.as_str(),
                    issue.help.as_deref(),
                )
            })
            .collect();
        assert_eq!(found, expected, "{with}");
    }

    #[test]
    fn problems_are_reworded_for_operators() {
        check(
            r#"{"skip":"print"}"#,
            &[(
                "skip",
                "`skip` must be a list, not the string `print`.",
                Some(r#"write `skip = ["print"]`"#),
            )],
        );
        check(
            r#"{"skip":[1]}"#,
            &[("skip[0]", "`skip[0]` must be a string, not `1`.", None)],
        );
        check(r#"{}"#, &[("", "`skip` is missing.", None)]);
        check(
            r#"{"skip":[],"max-events":0}"#,
            &[(
                "max-events",
                "`max-events` must be a whole number above 0, not `0`.",
                None,
            )],
        );
        check(
            r#"{"skip":[],"format":"arrray"}"#,
            &[(
                "format",
                "`format` is `arrray`; it can be `array` or `object`.",
                Some("did you mean `array`?"),
            )],
        );
        check(
            r#"{"skip":[],"where":{"server_labels.env":true}}"#,
            &[(
                r#"where."server_labels.env""#,
                r#"`where."server_labels.env"` must be a list, not `true`."#,
                None,
            )],
        );
        check(
            r#"{"skip":[],"maxevents":1}"#,
            &[(
                "maxevents",
                "Unknown key `maxevents`.",
                Some("did you mean `max-events`?"),
            )],
        );
        check(
            r#"{"skip":[],"zzz":1}"#,
            &[(
                "zzz",
                "Unknown key `zzz`.",
                Some("known keys: skip, max-events, format, where, dry"),
            )],
        );
        check(r#"[]"#, &[("", "the configuration must be a table.", None)]);
    }

    #[test]
    fn problems_in_several_keys_are_reported_at_once() {
        check(
            r#"{"dry":"yes","skip":"print","zzz":1}"#,
            &[
                (
                    "dry",
                    "`dry` must be true or false, not the string `yes`.",
                    None,
                ),
                (
                    "skip",
                    "`skip` must be a list, not the string `print`.",
                    Some(r#"write `skip = ["print"]`"#),
                ),
                (
                    "zzz",
                    "Unknown key `zzz`.",
                    Some("known keys: skip, max-events, format, where, dry"),
                ),
            ],
        );
    }

    #[test]
    fn a_valid_configuration_is_parsed() {
        let config: Config =
            parse(r#"{"skip":["print"],"format":"object","where":{"a.b":["c"]}}"#).unwrap();
        assert_eq!(
            (config.skip, config.r#where["a.b"].clone()),
            (vec!["print".to_owned()], vec!["c".to_owned()])
        );
    }
}
