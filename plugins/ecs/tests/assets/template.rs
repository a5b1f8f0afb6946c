//! A small model of how Elasticsearch 8.14 parses a document with the template.
//!
//! The mapping says `subobjects: false`: there are no objects, only fields whose names have dots.
//! An object in a document is flattened into such names, unless its field accepts objects. So a
//! field can be a number in one document and an object in another.

use std::collections::BTreeMap;

use serde_json::{Map, Value};

/// The values that a field's type accepts.
#[derive(Clone, Debug, PartialEq)]
pub enum Type {
    /// Any text, number or boolean.
    Keyword,
    /// The same, analysed; cannot be aggregated.
    Text,
    /// This text, or the first one if it is not set.
    Constant(Option<String>),
    Date,
    Long,
    Boolean,
    Ip,
    GeoPoint,
    /// Objects only, to a depth.
    Flattened(u64),
}

#[derive(Clone, Debug)]
pub struct Field {
    pub kind: Type,
    /// Can be sorted and aggregated.
    pub aggregatable: bool,
}

/// The mappings and settings that decide whether a document is accepted.
pub struct Template {
    pub fields: BTreeMap<String, Field>,
    pub dynamic: Vec<Value>,
}

/// The result for a document. If both are empty, all of it is indexed.
#[derive(Debug, Default)]
pub struct IndexResult {
    /// Why it is rejected.
    pub rejected: Vec<String>,
    /// Values that are kept but not indexed, because of `ignore_malformed`.
    pub ignored: Vec<String>,
}

impl Template {
    pub fn read() -> Template {
        let mappings = &super::json("component-mappings.json")["template"]["mappings"];
        assert_eq!(
            mappings["subobjects"], false,
            "the model requires `subobjects: false`"
        );
        assert_eq!(mappings["dynamic"], true, "unknown fields are indexed, too");
        let settings =
            &super::json("component-settings.json")["template"]["settings"]["index"]["mapping"];
        assert_eq!(
            settings["ignore_malformed"], true,
            "a value of the wrong type is kept, and the document accepted"
        );
        assert_eq!(
            settings["total_fields"]["ignore_dynamic_beyond_limit"], true,
            "fields beyond the limit are kept, and the document accepted"
        );
        let properties = mappings["properties"].as_object().unwrap();
        let limit = settings["total_fields"]["limit"].as_u64().unwrap();
        let used: usize = properties
            .values()
            .map(|field| 1 + field["fields"].as_object().map_or(0, Map::len))
            .sum();
        assert!(
            used as u64 * 2 < limit,
            "{used} fields of {limit}: there must be room for unknown fields"
        );
        let fields = properties
            .iter()
            .map(|(name, field)| (name.clone(), Field::read(name, field)))
            .collect();
        Template {
            fields,
            dynamic: mappings["dynamic_templates"].as_array().unwrap().clone(),
        }
    }

    /// Whether a field is declared under this name or below it.
    pub fn declares(&self, name: &str) -> bool {
        let below = format!("{name}.");
        self.fields.contains_key(name) || self.fields.keys().any(|field| field.starts_with(&below))
    }

    pub fn index(&self, document: &Value) -> IndexResult {
        let mut result = IndexResult::default();
        match &document["@timestamp"] {
            Value::String(time) if is_date(time) => {}
            other => result
                .rejected
                .push(format!("`@timestamp` must be one time: {other}")),
        }
        self.value("", document, &mut result);
        result
    }

    fn value(&self, name: &str, value: &Value, result: &mut IndexResult) {
        let field = self.fields.get(name).map(|field| &field.kind);
        match (value, field) {
            (Value::Null, _) => {}
            (Value::Array(list), _) => list
                .iter()
                .for_each(|value| self.value(name, value, result)),
            (Value::Object(_), Some(Type::Flattened(most))) => {
                if depth(value) > *most {
                    result
                        .rejected
                        .push(format!("`{name}` is deeper than {most}"));
                }
            }
            (Value::Object(point), Some(Type::GeoPoint)) => {
                if !["lat", "lon"]
                    .iter()
                    .all(|part| point.get(*part).is_some_and(Value::is_number))
                {
                    result
                        .ignored
                        .push(format!("`{name}` is not a geo point: {value}"));
                }
            }
            (Value::Object(object), _) => {
                for (key, value) in object {
                    let name = if name.is_empty() {
                        key.clone()
                    } else {
                        format!("{name}.{key}")
                    };
                    self.value(&name, value, result);
                }
            }
            (scalar, Some(kind)) => match kind.takes(scalar) {
                Ok(true) => {}
                Ok(false) => result
                    .ignored
                    .push(format!("`{name}` is not a {kind:?}: {scalar}")),
                Err(why) => result.rejected.push(format!("`{name}` {why}: {scalar}")),
            },
            (scalar, None) => match self.dynamic_type(name, scalar) {
                Some("keyword") => {}
                Some("long") if scalar.is_number() => {}
                other => result.ignored.push(format!(
                    "`{name}` is not declared, and not a {other:?}: {scalar}"
                )),
            },
        }
    }

    /// The type of an undeclared field, by the first matching dynamic template.
    pub fn dynamic_type(&self, name: &str, scalar: &Value) -> Option<&str> {
        let kind = match scalar {
            Value::String(_) => "string",
            Value::Bool(_) => "boolean",
            Value::Number(number) if number.is_f64() => "double",
            _ => "long",
        };
        let rules = self
            .dynamic
            .iter()
            .map(|rule| rule.as_object().unwrap().values().next().unwrap());
        let matching = rules.filter(|rule| {
            let kinds = rule["match_mapping_type"].as_array().unwrap();
            kinds.iter().any(|known| known == kind) && path_matches(&rule["path_match"], name)
        });
        matching
            .map(|rule| rule["mapping"]["type"].as_str().unwrap())
            .next()
    }
}

impl Field {
    fn read(name: &str, field: &Value) -> Field {
        let limited = || {
            assert!(
                field["ignore_above"] == 1024 || field["doc_values"] == false,
                "`{name}`: a long text would be too long a term"
            )
        };
        let kind = match field["type"].as_str().unwrap_or_default() {
            "keyword" => {
                limited();
                Type::Keyword
            }
            "wildcard" => Type::Keyword,
            "match_only_text" => Type::Text,
            "constant_keyword" => Type::Constant(field["value"].as_str().map(str::to_owned)),
            "date" => Type::Date,
            "long" | "unsigned_long" => Type::Long,
            "boolean" => Type::Boolean,
            "ip" => Type::Ip,
            "geo_point" => Type::GeoPoint,
            "flattened" => {
                limited();
                Type::Flattened(field["depth_limit"].as_u64().unwrap_or(20))
            }
            other => panic!("`{name}`: the model does not know the type `{other}`"),
        };
        let aggregatable = kind != Type::Text && field["doc_values"] != false;
        Field { kind, aggregatable }
    }
}

impl Type {
    /// Returns false if `ignore_malformed` keeps the value out of the index.
    fn takes(&self, scalar: &Value) -> Result<bool, String> {
        let text = scalar.as_str();
        Ok(match self {
            Type::Keyword | Type::Text => true,
            Type::Constant(Some(constant)) if text == Some(constant) => true,
            Type::Constant(None) => text.is_some(),
            Type::Constant(_) => return Err("is another constant".to_owned()),
            Type::Flattened(_) => return Err("accepts only objects".to_owned()),
            Type::Date => text.map_or(scalar.is_i64(), is_date),
            Type::Long => {
                scalar.is_number() || text.is_some_and(|text| text.parse::<f64>().is_ok())
            }
            Type::Boolean => scalar.is_boolean() || matches!(text, Some("true" | "false" | "")),
            Type::Ip => text.is_some_and(|text| text.parse::<std::net::IpAddr>().is_ok()),
            Type::GeoPoint => false,
        })
    }
}

fn depth(value: &Value) -> u64 {
    match value {
        Value::Object(object) => 1 + object.values().map(depth).max().unwrap_or_default(),
        Value::Array(list) => list.iter().map(depth).max().unwrap_or_default(),
        _ => 0,
    }
}

/// `strict_date_optional_time`, as far as events use it.
fn is_date(text: &str) -> bool {
    let shape: String = text
        .chars()
        .map(|letter| if letter.is_ascii_digit() { '0' } else { letter })
        .collect();
    let Some((date, time)) = shape.split_once('T') else {
        return shape == "0000-00-00";
    };
    let plain = time
        .trim_end_matches('Z')
        .split(['+', '-'])
        .next()
        .unwrap_or_default();
    let (clock, fraction) = plain.split_once('.').unwrap_or((plain, "0"));
    date == "0000-00-00"
        && clock == "00:00:00"
        && (1..=9).contains(&fraction.len())
        && fraction.bytes().all(|digit| digit == b'0')
}

fn path_matches(patterns: &Value, name: &str) -> bool {
    let one = |pattern: &Value| {
        pattern
            .as_str()
            .is_some_and(|pattern| name.starts_with(pattern.trim_end_matches('*')))
    };
    match patterns {
        Value::Null => true,
        Value::Array(patterns) => patterns.iter().any(one),
        pattern => one(pattern),
    }
}

/// Other templates reject this.
#[test]
fn a_field_may_be_a_number_here_and_an_object_there() {
    let template = Template::read();
    for (document, rejected, ignored) in [
        (r#"{"teleport":{"audit":{"x":1}}}"#, 0, 0),
        (
            r#"{"teleport":{"audit":{"x":{"y":[1,{"z":"a"}]},"session":"s","user":"u"}}}"#,
            0,
            0,
        ),
        (
            r#"{"user":{"name":{"first":"bob"}},"message":{"method":"tools/call"}}"#,
            0,
            0,
        ),
        (
            r#"{"client":{"ip":"nowhere","port":"http"},"event":{"start":"soon"}}"#,
            0,
            3,
        ),
        (
            r#"{"teleport":{"audit":{"database":{"request_body":"not JSON"}}}}"#,
            0,
            0,
        ),
        (
            r#"{"teleport":{"audit":{"database":{"request_body":{"query":{"match_all":{}}}}}}}"#,
            0,
            0,
        ),
        (
            r#"{"teleport":{"audit":{"server":{"labels":{"a.b":"c"}}}}}"#,
            0,
            0,
        ),
        (
            r#"{"teleport":{"audit":{"server":{"labels":"a=b"}}}}"#,
            1,
            0,
        ),
        (r#"{"event":{"module":"other"}}"#, 1, 0),
        (r#"{"@timestamp":"soon"}"#, 1, 1),
    ] {
        let mut document: Value = serde_json::from_str(document).unwrap();
        document
            .as_object_mut()
            .unwrap()
            .entry("@timestamp")
            .or_insert("2026-01-05T08:00:00.000Z".into());
        let result = template.index(&document);
        assert_eq!(
            (result.rejected.len(), result.ignored.len()),
            (rejected, ignored),
            "{document}: {result:?}"
        );
    }
}
