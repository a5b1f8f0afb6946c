//! Values that were given: on the command line, in the file or in the environment, in this order.

use std::collections::BTreeSet;
use std::env::VarError;
use std::ops::Range;
use std::time::Duration;

use lockgate_model::Millis;
use toml::Spanned;
use toml::de::{DeTable, DeValue};

use super::duration::go_duration;
use super::options::{HANDLER_OPTIONS, HandlerOption, HandlerOptions};
use crate::environment::Environment;
use crate::issues::Issue;
use crate::reading::Reading;
use crate::table::suggest;
use crate::value::type_name;

/// Finds the values of options.
pub(super) struct Lookup<'a> {
    options: &'a HandlerOptions,
    root: &'a DeTable<'a>,
    environment: &'a dyn Environment,
    /// The keys of the file that belong to an option.
    known: BTreeSet<String>,
}

/// A value, and where it comes from.
#[derive(Clone, Debug)]
pub(super) struct Given {
    raw: Raw,
    /// The option, the variable or the key, as the operator wrote it.
    pub(super) place: String,
    /// In the file; empty if it is not from there.
    pub(super) span: Range<usize>,
}

#[derive(Clone, Debug, PartialEq)]
enum Raw {
    Text(String),
    Number(i64),
    Flag(bool),
    List(Vec<String>),
    Other(&'static str),
}

impl<'a> Lookup<'a> {
    pub(super) fn new(
        options: &'a HandlerOptions,
        root: &'a DeTable<'a>,
        environment: &'a dyn Environment,
    ) -> Lookup<'a> {
        let known = HANDLER_OPTIONS.iter().flat_map(|option| option.keys());
        Lookup {
            options,
            root,
            environment,
            known: known.map(|key| key.join(".")).collect(),
        }
    }

    /// The value that counts: the Event Handler prefers the file to the environment.
    pub(super) fn find(&self, r: &mut Reading<'_>, name: &str) -> Option<Given> {
        let option = HandlerOption::named(name);
        if let Some(value) = self.options.value(name) {
            return Some(Given {
                raw: Raw::Text(value.to_owned()),
                place: format!("--{name}"),
                span: 0..0,
            });
        }
        let keys = option.keys();
        let in_file = keys
            .iter()
            .find_map(|key| Some((key, dig(self.root, key)?)));
        if let Some((key, value)) = in_file {
            return Some(Given {
                raw: Raw::of(value.get_ref()),
                place: key.join("."),
                span: value.span(),
            });
        }
        let variables = option.variables();
        variables.into_iter().find_map(|variable| {
            let text = match self.environment.variable(&variable) {
                Ok(text) => text,
                Err(VarError::NotPresent) => return None,
                Err(VarError::NotUnicode(_)) => {
                    let message = format!("The environment variable `{variable}` is not UTF-8.");
                    let hint = format!("give `{variable}` a value in UTF-8");
                    r.issue(Issue::new(0..0, message, "", hint));
                    return None;
                }
            };
            let counts = !text.is_empty() || option.is_list();
            counts.then_some(Given {
                raw: Raw::Text(text),
                place: variable,
                span: 0..0,
            })
        })
    }

    /// Warns of keys that belong to no option. The Event Handler ignores them in silence.
    pub(super) fn warn_of_unknown_keys(&self, r: &mut Reading<'_>) {
        let mut unknown = Vec::new();
        walk(self.root, "", &mut |path, key| {
            let is_known = self.known.contains(path);
            let is_table = self.known.iter().any(|known| {
                known
                    .strip_prefix(path)
                    .is_some_and(|rest| rest.starts_with('.'))
            });
            if !is_known && !is_table {
                unknown.push((path.to_owned(), key));
            }
            is_table && !is_known
        });
        let preferred: Vec<String> = HANDLER_OPTIONS.iter().map(|it| it.key()).collect();
        let preferred: Vec<&str> = preferred.iter().map(String::as_str).collect();
        for (path, span) in unknown {
            let hint = match path.as_str() {
                "fluentd" => "the section is called `[forward.fluentd]`".to_owned(),
                "namespace" | "teleport.namespace" => {
                    "remove it: there is no other namespace than `default`".to_owned()
                }
                "cursor" => "remove it: the Event Handler never had this option".to_owned(),
                path => suggest(path, &preferred),
            };
            r.warnings.push(Issue::warning(
                span,
                format!("The Event Handler has no key `{path}`: it has no effect."),
                "unknown",
                hint,
            ));
        }
    }
}

impl Given {
    pub(super) fn text(&self, r: &mut Reading<'_>) -> Option<String> {
        match &self.raw {
            Raw::Text(text) if !text.is_empty() => Some(text.clone()),
            Raw::Text(_) => {
                let message = format!("`{}` is empty.", self.place);
                r.issue(Issue::new(
                    self.span.clone(),
                    message,
                    "empty",
                    "give it a value",
                ));
                None
            }
            _ => self.wrong(r, "a string", "write it in quotes"),
        }
    }

    /// A list, or a text with commas.
    pub(super) fn list(&self, r: &mut Reading<'_>) -> Option<Vec<String>> {
        let names = match &self.raw {
            Raw::Text(text) => text.split(',').map(str::to_owned).collect(),
            Raw::List(names) => names.clone(),
            _ => {
                return self.wrong(
                    r,
                    "a list of strings",
                    "write `[\"user.login\", \"session.upload\"]`",
                );
            }
        };
        let names = names.iter().map(|name| name.trim());
        let mut listed: Vec<String> = Vec::new();
        for name in names.filter(|name| !name.is_empty()) {
            if name.contains(|c: char| c.is_whitespace() || c.is_control() || "$,\"".contains(c)) {
                return self.wrong(
                    r,
                    "a list of event types",
                    "separate event types with commas",
                );
            }
            if !listed.iter().any(|listed| listed == name) {
                listed.push(name.to_owned());
            }
        }
        Some(listed)
    }

    pub(super) fn flag(&self, r: &mut Reading<'_>) -> Option<bool> {
        match &self.raw {
            Raw::Flag(flag) => Some(*flag),
            Raw::Text(text) => match text.to_ascii_lowercase().as_str() {
                "true" | "1" | "yes" | "t" | "y" | "on" => Some(true),
                "false" | "0" | "no" | "f" | "n" | "off" => Some(false),
                _ => self.wrong(r, "`true` or `false`", "write `true` or `false`"),
            },
            _ => self.wrong(r, "`true` or `false`", "write `true` or `false`"),
        }
    }

    pub(super) fn number(&self, r: &mut Reading<'_>) -> Option<i64> {
        let number = match &self.raw {
            Raw::Number(number) => Some(*number),
            Raw::Text(text) => text.trim().parse().ok(),
            _ => None,
        };
        number.or_else(|| self.wrong(r, "a whole number", "write a number, such as `20`"))
    }

    /// As Go writes durations. A bare number counts nanoseconds.
    pub(super) fn duration(&self, r: &mut Reading<'_>) -> Option<Duration> {
        let duration = match &self.raw {
            Raw::Number(nanos) => u64::try_from(*nanos).ok().map(Duration::from_nanos),
            Raw::Text(text) => go_duration(text.trim()),
            _ => None,
        };
        duration.or_else(|| {
            let hint = "write a number with a unit, such as `\"10s\"`, `\"1m30s\"` or `\"24h\"`";
            self.wrong(r, "a duration", hint)
        })
    }

    /// Whole seconds, as the Event Handler reads it.
    pub(super) fn time(&self, r: &mut Reading<'_>) -> Option<Millis> {
        let time = match &self.raw {
            Raw::Text(text) => text.trim().parse::<jiff::Timestamp>().ok(),
            _ => None,
        };
        let time = time.map(|time| time.as_second() * 1000);
        time.or_else(|| {
            let hint = "write an RFC 3339 date-time, such as `\"2026-01-01T00:00:00Z\"`";
            self.wrong(r, "a time", hint)
        })
    }

    pub(super) fn problem(&self, r: &mut Reading<'_>, problem: &str, label: &str, hint: &str) {
        let message = format!("`{}` {problem}.", self.place);
        r.issue(Issue::new(self.span.clone(), message, label, hint));
    }

    /// The value is not repeated: it may stand where a secret belongs.
    fn wrong<T>(&self, r: &mut Reading<'_>, what: &str, hint: &str) -> Option<T> {
        let problem = match &self.raw {
            Raw::Other(kind) => format!("is {kind}, but must be {what}"),
            _ => format!("is not {what}"),
        };
        self.problem(r, &problem, "", hint);
        None
    }
}

impl Raw {
    fn of(value: &DeValue<'_>) -> Raw {
        match value {
            DeValue::String(text) => Raw::Text(text.to_string()),
            DeValue::Integer(number) => match number.to_string().parse() {
                Ok(number) => Raw::Number(number),
                Err(_) => Raw::Other("a number that is too large"),
            },
            DeValue::Boolean(flag) => Raw::Flag(*flag),
            DeValue::Datetime(date) => Raw::Text(date.to_string()),
            DeValue::Array(array) => {
                let texts = array.iter().map(|item| item.get_ref().as_str());
                let texts: Option<Vec<&str>> = texts.collect();
                match texts {
                    Some(texts) => Raw::List(texts.into_iter().map(str::to_owned).collect()),
                    None => Raw::Other("a list of mixed values"),
                }
            }
            other => Raw::Other(type_name(other)),
        }
    }
}

/// The value at a path of tables.
fn dig<'a>(root: &'a DeTable<'a>, path: &[&str]) -> Option<&'a Spanned<DeValue<'a>>> {
    let (last, tables) = path.split_last()?;
    let mut table = root;
    for name in tables {
        table = table.get(*name)?.get_ref().as_table()?;
    }
    table.get(*last)
}

/// Calls `enter` for each key, with its path, which returns whether to look into its table.
fn walk(table: &DeTable<'_>, path: &str, enter: &mut dyn FnMut(&str, Range<usize>) -> bool) {
    for (key, value) in table {
        let path = match path {
            "" => key.get_ref().to_string(),
            path => format!("{path}.{}", key.get_ref()),
        };
        if enter(&path, key.span())
            && let DeValue::Table(table) = value.get_ref()
        {
            walk(table, &path, enter);
        }
    }
}
