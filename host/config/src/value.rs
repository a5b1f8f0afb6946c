//! A value at a key, and its conversion to the types of the configuration.

use std::ops::Range;
use std::path::PathBuf;

use lockgate_model::Secret;
use toml::Spanned;
use toml::de::DeValue;

use crate::issues::Issue;
use crate::quantity::Quantity;
use crate::reading::{Allowed, Reading};
use crate::table::{Table, list, suggest};
use crate::units::{self, EventRate, UnitIssue};

/// One string of a list.
pub(crate) struct Item {
    pub text: String,
    /// As written in the list: messages never show values from the environment.
    pub shown: String,
    pub span: Range<usize>,
}

#[derive(Clone)]
pub(crate) struct Value<'a> {
    /// The last part of the key.
    pub name: String,
    /// The whole key, as messages show it.
    pub path: String,
    /// The path with `*` for names that the operator chooses.
    pub pattern: String,
    pub key_span: Range<usize>,
    pub node: &'a Spanned<DeValue<'a>>,
}

impl<'a> Value<'a> {
    pub fn span(&self) -> Range<usize> {
        self.node.span()
    }

    pub fn node(&self) -> &'a DeValue<'a> {
        self.node.get_ref()
    }

    /// A string as written in the file: messages never show values from the environment.
    pub fn shown(&self) -> &'a str {
        self.node().as_str().unwrap_or_default()
    }

    /// From the start of the key to the end of the value; the header of a table that has one.
    pub fn whole_span(&self) -> Range<usize> {
        whole_span(&self.key_span, &self.span())
    }

    /// "must be `wanted`, not a list".
    pub fn wrong_type(&self, r: &mut Reading<'_>, wanted: &str, hint: impl Into<String>) {
        let found = type_name(self.node());
        r.issue(Issue::new(
            r.place(self),
            format!("`{}` must be {wanted}, not {found}.", self.path),
            found,
            hint,
        ));
    }

    /// A string with its references replaced.
    pub fn text(&self, r: &mut Reading<'_>) -> Option<String> {
        self.text_with(r, Allowed::Variables)
    }

    pub fn text_with(&self, r: &mut Reading<'_>, allowed: Allowed) -> Option<String> {
        let DeValue::String(text) = self.node() else {
            self.wrong_type(r, "a string", format!("write `{} = \"…\"`", self.name));
            return None;
        };
        r.resolve(self, text, allowed)
    }

    /// A secret that is not empty. `hint`: the hint if it is.
    pub fn secret(&self, r: &mut Reading<'_>, hint: &str) -> Option<Secret> {
        let text = self.text_with(r, Allowed::Secrets)?;
        if text.is_empty() {
            r.issue(Issue::new(
                self.key_span.clone(),
                format!("`{}` is empty.", self.path),
                "empty",
                hint,
            ));
            return None;
        }
        Some(Secret::new(text))
    }

    /// A path, relative to the directory of the configuration.
    pub fn path(&self, r: &mut Reading<'_>) -> Option<PathBuf> {
        let text = self.text(r)?;
        let problem = if text.trim().is_empty() {
            "is empty"
        } else if text.contains("-----BEGIN") {
            "contains the key or the certificate itself"
        } else if text.contains(char::is_control) {
            "contains a control character"
        } else {
            return Some(r.absolute(&text));
        };
        r.issue(Issue::new(
            r.place(self),
            format!("`{}` {problem}.", self.path),
            "not a path",
            "write the path of a file",
        ));
        None
    }

    pub fn flag(&self, r: &mut Reading<'_>) -> Option<bool> {
        let DeValue::Boolean(flag) = self.node() else {
            self.wrong_type(r, "`true` or `false`", "write it without quotes");
            return None;
        };
        Some(*flag)
    }

    /// A number from `least` to `most`. `default`: for the hint.
    pub fn quantity<Q: Quantity>(
        &self,
        r: &mut Reading<'_>,
        least: Q,
        most: Q,
        default: Option<Q>,
    ) -> Option<Q> {
        let range = format!(
            "choose a value from {} to {}{}",
            least.show(),
            most.show(),
            default.map_or(String::new(), |it| format!(
                "; the default is {}",
                it.show()
            ))
        );
        let default = match default {
            Some(default) => format!("the default is `{} = {}`", self.name, default.show()),
            None => format!("for example `{} = {}`", self.name, most.show()),
        };
        let quantity = match self.node() {
            DeValue::Integer(number) => {
                let Ok(number) = i64::from_str_radix(number.as_str(), number.radix()) else {
                    r.issue(Issue::new(
                        self.span(),
                        format!("`{}` is too large.", self.path),
                        "too large",
                        default,
                    ));
                    return None;
                };
                match u64::try_from(number).ok().and_then(Q::of_number) {
                    Some(quantity) => quantity,
                    None if Q::UNITS.is_empty() => {
                        self.out_of_range(r, &number.to_string(), true, range);
                        return None;
                    }
                    None => {
                        let message = format!(
                            "`{}` must be {} in quotes, with its unit.",
                            self.path,
                            Q::WHAT
                        );
                        r.issue(Issue::new(
                            self.span(),
                            message,
                            "no unit",
                            add_unit(Q::UNITS, &default),
                        ));
                        return None;
                    }
                }
            }
            DeValue::String(text) if !Q::UNITS.is_empty() || text.contains("${") => {
                let text = r.resolve(self, text, Allowed::Variables)?;
                match Q::of_text(&text) {
                    Ok(quantity) => quantity,
                    Err(issue) => {
                        self.unit_issue(r, &text, issue, Q::WHAT, Q::UNITS, default);
                        return None;
                    }
                }
            }
            DeValue::Float(number) => {
                let meant = number.as_str().parse().map_or(vec![], Q::of_fraction);
                let meant = meant.into_iter().filter(|it| (least..=most).contains(it));
                let meant: Vec<_> = meant
                    .map(|it| format!("`{} = {}`", self.name, it.show()))
                    .collect();
                let hint = match meant.as_slice() {
                    [] => default,
                    meant => format!("did you mean {}?", meant.join(" or ")),
                };
                self.wrong_type(r, Q::WHAT, hint);
                return None;
            }
            _ => {
                self.wrong_type(r, Q::WHAT, default);
                return None;
            }
        };
        if quantity < least || quantity > most {
            let shown = self
                .node()
                .as_str()
                .map_or_else(|| quantity.show(), |text| format!("\"{text}\""));
            self.out_of_range(r, &shown, quantity < least, range);
            return None;
        }
        Some(quantity)
    }

    /// `"2000/s"`.
    pub fn rate(&self, r: &mut Reading<'_>) -> Option<EventRate> {
        let example = format!("for example `{} = \"2000/s\"`", self.name);
        let DeValue::String(text) = self.node() else {
            self.wrong_type(r, "a rate in quotes", example);
            return None;
        };
        let text = r.resolve(self, text, Allowed::Variables)?;
        match units::rate(&text) {
            Ok(rate) if rate.events > 0 => Some(rate),
            Ok(_) => {
                r.issue(Issue::new(
                    self.span(),
                    format!("`{}` would stop delivery.", self.path),
                    "must be above 0",
                    example,
                ));
                None
            }
            Err(issue) => {
                self.unit_issue(r, &text, issue, "a rate", units::RATE_UNITS, example);
                None
            }
        }
    }

    /// One of a few words.
    pub fn choice<T: Copy>(&self, r: &mut Reading<'_>, choices: &[(&str, T)]) -> Option<T> {
        let names: Vec<&str> = choices.iter().map(|(name, _)| *name).collect();
        if !matches!(self.node(), DeValue::String(_)) {
            self.wrong_type(r, "a string", format!("choose from {}", list(&names)));
            return None;
        }
        let text = self.text(r)?;
        let found = choices
            .iter()
            .find(|(name, _)| *name == text)
            .map(|(_, choice)| *choice);
        if found.is_none() {
            r.issue(Issue::new(
                self.span(),
                format!("`{}` cannot be `{}`.", self.path, self.shown()),
                "unknown",
                suggest(&text, &names),
            ));
        }
        found
    }

    /// A list of strings.
    pub fn texts(&self, r: &mut Reading<'_>, example: &str) -> Option<Vec<Item>> {
        let DeValue::Array(array) = self.node() else {
            self.wrong_type(r, "a list of strings", format!("write `{example}`"));
            return None;
        };
        let mut texts = Vec::new();
        for node in array.iter() {
            let element = Value {
                key_span: node.span(),
                node,
                ..self.clone()
            };
            match node.get_ref() {
                DeValue::String(shown) => {
                    let text = r.resolve(&element, shown, Allowed::Variables);
                    texts.extend(text.map(|text| Item {
                        text,
                        shown: shown.to_string(),
                        span: node.span(),
                    }));
                }
                other => {
                    let found = type_name(other);
                    r.issue(Issue::new(
                        node.span(),
                        format!(
                            "`{}` must be a list of strings, but this item is {found}.",
                            self.path
                        ),
                        found,
                        format!("write `{example}`"),
                    ));
                }
            }
        }
        Some(texts)
    }

    pub fn table(&self, r: &mut Reading<'_>) -> Option<Table<'a>> {
        let DeValue::Table(entries) = self.node() else {
            let hint = match self.node() {
                DeValue::Array(_) => {
                    format!("`[{}]` with single brackets starts a table", self.path)
                }
                _ => format!("`[{}]` on a line of its own starts a table", self.path),
            };
            self.wrong_type(r, "a table", hint);
            return None;
        };
        Some(Table::new(
            self.path.clone(),
            self.pattern.clone(),
            self.whole_span(),
            entries,
        ))
    }

    /// An array of tables: `[[…]]`.
    pub fn tables(&self, r: &mut Reading<'_>) -> Vec<Table<'a>> {
        let hint = format!(
            "start each table with `[[{}]]`, in double brackets",
            self.path
        );
        let DeValue::Array(array) = self.node() else {
            self.wrong_type(r, "a list of tables", hint);
            return vec![];
        };
        let mut tables = Vec::new();
        for node in array.iter() {
            let element = Value {
                key_span: node.span(),
                node,
                ..self.clone()
            };
            match node.get_ref() {
                DeValue::Table(entries) => tables.push(Table::new(
                    self.path.clone(),
                    self.pattern.clone(),
                    node.span(),
                    entries,
                )),
                _ => element.wrong_type(r, "a list of tables", hint.clone()),
            }
        }
        tables
    }

    fn out_of_range(&self, r: &mut Reading<'_>, shown: &str, too_small: bool, range: String) {
        let label = if too_small { "too small" } else { "too large" };
        r.issue(Issue::new(
            self.span(),
            format!("`{}` cannot be {shown}.", self.path),
            label,
            range,
        ));
    }

    fn unit_issue(
        &self,
        r: &mut Reading<'_>,
        text: &str,
        issue: UnitIssue,
        what: &str,
        units: &str,
        default: String,
    ) {
        let shown = self.shown();
        let has_unit = units.is_empty() || issue == UnitIssue::TooFine;
        let (problem, label) = match issue {
            UnitIssue::NoNumber if units.is_empty() => (format!("is not {what}"), "not a number"),
            UnitIssue::NoNumber => (format!("is not {what}"), "no number with a unit"),
            UnitIssue::NoUnit => ("has no unit".to_owned(), "no unit"),
            UnitIssue::UnknownUnit(unit) if text == shown => {
                (format!("has an unknown unit, `{unit}`"), "unknown unit")
            }
            UnitIssue::UnknownUnit(_) => ("has an unknown unit".to_owned(), "unknown unit"),
            UnitIssue::Fraction => ("is not a whole number".to_owned(), "whole numbers only"),
            UnitIssue::TooFine => (
                "has more than one decimal".to_owned(),
                "one decimal at most",
            ),
            UnitIssue::TooLarge => ("is too large".to_owned(), "too large"),
        };
        let hint = if has_unit {
            default
        } else {
            add_unit(units, &default)
        };
        r.issue(Issue::new(
            r.place(self),
            format!("`{}`: `{shown}` {problem}.", self.path),
            label,
            hint,
        ));
    }
}

fn add_unit(units: &str, default: &str) -> String {
    let one_of = if units.contains(' ') {
        "one of the units "
    } else {
        "the unit "
    };
    format!("add {one_of}{units}; {default}")
}

/// The type of a value in messages, such as "a string".
pub(crate) fn type_name(value: &DeValue<'_>) -> &'static str {
    match value {
        DeValue::String(_) => "a string",
        DeValue::Integer(_) => "a whole number",
        DeValue::Float(_) => "a number with a fraction",
        DeValue::Boolean(true) => "`true`",
        DeValue::Boolean(false) => "`false`",
        DeValue::Datetime(_) => "a date",
        DeValue::Array(_) => "a list",
        DeValue::Table(_) => "a table",
    }
}

/// From the start of a key to the end of its value; the header of a table that has one.
pub(crate) fn whole_span(key: &Range<usize>, value: &Range<usize>) -> Range<usize> {
    if value.start <= key.start && key.end <= value.end {
        value.clone()
    } else {
        key.start..value.end.max(key.end)
    }
}
