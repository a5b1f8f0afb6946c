//! A plugin's own configuration: any TOML, turned into JSON, with the place of every part of it.

use std::collections::BTreeMap;
use std::fmt;
use std::ops::Range;

use serde_json::{Map, Number, Value as Json};
use toml::de::DeValue;

use crate::reading::Reading;
use crate::report::Issue;
use crate::substitution::{Piece, pieces};
use crate::value::{Value, type_name};

/// The `with` table of a stage or a sink.
#[derive(Clone, PartialEq)]
pub struct With {
    json: Json,
    /// Dotted path to the bytes of key and value.
    places: BTreeMap<String, Range<usize>>,
    /// Where the table is, or what to point at where there is none.
    span: Range<usize>,
}

impl With {
    /// A table that was not written. `span`: what to point at instead.
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
                format!("`{} = {{ key = value }}`", value.name),
            );
            return with;
        }
        with.json = with.convert(r, value, String::new());
        with
    }

    /// The table as JSON: an object. Dates are RFC 3339 strings.
    pub fn json(&self) -> &Json {
        &self.json
    }

    /// The bytes of the TOML text that `path` names: a dotted path inside the table, as plugins
    /// report it, with list items as `.0` or `[0]`. What is not there is looked for one step
    /// up; the empty path is the table itself.
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
                    Err(_) => no_json(r, value, "does not fit into 64 bits"),
                }
            }
            DeValue::Float(number) => match number.as_str().parse().ok().and_then(Number::from_f64)
            {
                Some(number) => Json::Number(number),
                None => no_json(r, value, "is no finite number"),
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
            format!("`{reference}` cannot stand inside `with`: a plugin never holds a secret.");
        let hint = "put it into the sink's `url`, `headers` or `auth`, which the host applies after the plugin, or write `$${` for a literal `${`";
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
        "`{}` {problem}, so that a plugin cannot be given it.",
        value.path
    );
    r.issue(Issue::new(
        r.place(value),
        message,
        type_name(value.node()),
        "write it as a string, if the plugin takes one",
    ));
    Json::Null
}
