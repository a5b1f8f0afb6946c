//! A plugin's own configuration: any TOML, converted to JSON, with the span of each part.

use std::collections::BTreeMap;
use std::fmt;
use std::ops::Range;

use serde_json::{Map, Number, Value as Json};
use toml::de::DeValue;

use crate::event_types;
use crate::issues::Issue;
use crate::reading::Reading;
use crate::substitution::{Piece, pieces};
use crate::value::{Value, type_name};

/// The `with` table of a stage or a sink.
#[derive(Clone, PartialEq)]
pub struct With {
    pub(crate) json: Json,
    /// Dotted path to the span of key and value.
    pub(crate) places: BTreeMap<String, Range<usize>>,
    /// The span of the table, or of the text to point at if there is no table.
    pub(crate) span: Range<usize>,
}

impl With {
    /// A table that is absent. `span`: the text to point at instead.
    pub(crate) fn empty(span: Range<usize>) -> With {
        With {
            json: Json::Object(Map::new()),
            places: BTreeMap::new(),
            span,
        }
    }

    pub(crate) fn read(r: &mut Reading<'_>, value: &Value<'_>) -> With {
        let mut with = With::empty(value.whole_span());
        if !matches!(value.node(), DeValue::Table(_)) {
            value.wrong_type(
                r,
                "a table",
                format!("write `{} = {{ key = value }}`", value.name),
            );
            return with;
        }
        with.json = with.convert(r, value, String::new());
        with
    }

    /// A warning for each of these event types that is not known and was written in the table.
    pub fn check_event_types<'t>(
        &self,
        types: impl Iterator<Item = &'t String>,
    ) -> impl Iterator<Item = Issue> {
        types.filter_map(|name| {
            let place = path_of(&self.json, name)?;
            event_types::check(name, name, self.locate(&place))
        })
    }

    /// The table as JSON: an object. Dates are RFC 3339 strings.
    pub fn json(&self) -> &Json {
        &self.json
    }

    /// The span in the TOML text of `path`: a dotted path inside the table, as plugins report it,
    /// with list items as `.0` or `[0]`. If it is absent, the span of its nearest parent; the empty
    /// path is the table itself.
    pub fn locate(&self, path: &str) -> Range<usize> {
        let plain = path.replace('[', ".").replace([']', '"'], "");
        let mut path = plain.as_str();
        while !path.is_empty() {
            if let Some(span) = self.places.get(path) {
                return span.clone();
            }
            path = path.rsplit_once('.').map_or("", |(parent, _)| parent);
        }
        self.span.clone()
    }

    /// `at`: the dotted path of `value` inside the table.
    fn convert(&mut self, r: &mut Reading<'_>, value: &Value<'_>, at: String) -> Json {
        let below = |key: &str| {
            if at.is_empty() {
                key.to_owned()
            } else {
                format!("{at}.{key}")
            }
        };
        match value.node() {
            DeValue::Table(table) => {
                let mut object = Map::new();
                for (key, node) in table {
                    let name = key.get_ref().to_string();
                    let path = format!("{}.{name}", value.path);
                    let item = Value {
                        name: name.clone(),
                        path,
                        pattern: String::new(),
                        key_span: key.span(),
                        node,
                    };
                    self.places.insert(below(&name), item.whole_span());
                    let json = self.convert(r, &item, below(&name));
                    object.insert(name, json);
                }
                Json::Object(object)
            }
            DeValue::Array(array) => {
                let items = array.iter().enumerate().map(|(index, node)| {
                    let item = Value {
                        key_span: node.span(),
                        node,
                        ..value.clone()
                    };
                    self.places.insert(below(&index.to_string()), node.span());
                    self.convert(r, &item, below(&index.to_string()))
                });
                Json::Array(items.collect())
            }
            DeValue::String(text) => Json::String(self.string(r, value, text)),
            DeValue::Boolean(flag) => Json::Bool(*flag),
            DeValue::Datetime(date) => Json::String(date.to_string()),
            DeValue::Integer(number) => {
                match i64::from_str_radix(number.as_str(), number.radix()) {
                    Ok(number) => Json::Number(number.into()),
                    Err(_) => no_json(r, value, "does not fit in 64 bits"),
                }
            }
            DeValue::Float(number) => match number.as_str().parse().ok().and_then(Number::from_f64)
            {
                Some(number) => Json::Number(number),
                None => no_json(r, value, "is not a finite number"),
            },
        }
    }

    /// A secret never reaches a plugin.
    fn string(&self, r: &mut Reading<'_>, value: &Value<'_>, text: &str) -> String {
        let mut plain = String::new();
        for piece in pieces(text) {
            match piece {
                Piece::Text(text) | Piece::Unknown(text) => plain.push_str(text),
                Piece::Variable(name) => self.refuse(r, value, format!("${{env:{name}}}")),
                Piece::File(path) => self.refuse(r, value, format!("${{file:{path}}}")),
            }
        }
        plain
    }

    fn refuse(&self, r: &mut Reading<'_>, value: &Value<'_>, reference: String) {
        let span = r.reference_span(value, &reference);
        let message =
            format!("`{reference}` is not allowed in `with`: plugins never hold secrets.");
        let hint = "put it in the sink's `url`, `headers` or `auth`, which the host applies after \
                    the plugin; `$${` stands for a literal `${`";
        r.issue(Issue::new(span, message, "not replaced here", hint));
    }
}

impl fmt::Debug for With {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "With({})", self.json)
    }
}

fn no_json(r: &mut Reading<'_>, value: &Value<'_>, problem: &str) -> Json {
    let message = format!(
        "`{}` {problem}, so it cannot be passed to a plugin.",
        value.path
    );
    r.issue(Issue::new(
        r.place(value),
        message,
        type_name(value.node()),
        "write it as a string if the plugin accepts one",
    ));
    Json::Null
}

/// The dotted path of the first text that is this one.
fn path_of(value: &Json, text: &str) -> Option<String> {
    let below = |at: String, value| {
        let rest = path_of(value, text)?;
        Some(if rest.is_empty() {
            at
        } else {
            format!("{at}.{rest}")
        })
    };
    match value {
        Json::String(found) => (found == text).then(String::new),
        Json::Array(list) => {
            let mut list = list.iter().enumerate();
            list.find_map(|(index, value)| below(index.to_string(), value))
        }
        Json::Object(table) => {
            let mut table = table.iter();
            table.find_map(|(key, value)| below(key.clone(), value))
        }
        _ => None,
    }
}
