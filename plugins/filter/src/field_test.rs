//! Tests of fields: `where` and `except`.

use std::fmt;

use lockgate_plugin::json::{self, Malformed};
use serde::de::{Deserialize, Deserializer, Error, SeqAccess, Unexpected, Visitor};

/// A condition on events: a field must equal one of some values.
#[derive(Clone, Debug)]
pub struct FieldTest {
    pub path: String,
    pub values: Values,
}

/// The values that an operator wrote for a field: one, or a list.
#[derive(Clone, Debug, PartialEq)]
pub struct Values(Vec<Scalar>);

/// A text, a number, true or false.
#[derive(Clone, Debug, PartialEq)]
pub enum Scalar {
    Text(String),
    Integer(i128),
    Number(f64),
    Bool(bool),
}

// === impl FieldTest ===

impl FieldTest {
    /// Whether the condition holds for an event. Scans the payload once, up to the field.
    pub fn holds(&self, payload: &str) -> Result<bool, Malformed> {
        match json::find(payload, &self.path)? {
            None => Ok(false),
            Some(list) if list.starts_with('[') => {
                for element in json::elements(list) {
                    if self.values.contain(element?.value) {
                        return Ok(true);
                    }
                }
                Ok(false)
            }
            Some(value) => Ok(self.values.contain(value)),
        }
    }
}

// === impl Values ===

impl Values {
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Whether a JSON value equals one of them.
    fn contain(&self, written: &str) -> bool {
        self.0.iter().any(|scalar| scalar.is(written))
    }
}

impl<'de> Deserialize<'de> for Values {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Values, D::Error> {
        deserializer
            .deserialize_any(Reader { lists: true })
            .map(Values)
    }
}

impl<'de> Deserialize<'de> for Scalar {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Scalar, D::Error> {
        let mut one = deserializer.deserialize_any(Reader { lists: false })?;
        Ok(one.pop().expect("a reader without lists reads one value"))
    }
}

struct Reader {
    lists: bool,
}

impl<'de> Visitor<'de> for Reader {
    type Value = Vec<Scalar>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(if self.lists {
            "a string, a number, true or false, or a list of those"
        } else {
            "a string, a number, true or false"
        })
    }

    fn visit_str<E: Error>(self, text: &str) -> Result<Self::Value, E> {
        Ok(vec![Scalar::Text(text.into())])
    }

    fn visit_bool<E: Error>(self, value: bool) -> Result<Self::Value, E> {
        Ok(vec![Scalar::Bool(value)])
    }

    fn visit_i64<E: Error>(self, value: i64) -> Result<Self::Value, E> {
        Ok(vec![Scalar::Integer(value.into())])
    }

    fn visit_u64<E: Error>(self, value: u64) -> Result<Self::Value, E> {
        Ok(vec![Scalar::Integer(value.into())])
    }

    fn visit_f64<E: Error>(self, value: f64) -> Result<Self::Value, E> {
        Ok(vec![Scalar::Number(value)])
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Self::Value, A::Error> {
        if !self.lists {
            return Err(A::Error::invalid_type(Unexpected::Seq, &self));
        }
        let mut values = vec![];
        while let Some(value) = list.next_element()? {
            values.push(value);
        }
        Ok(values)
    }
}

// === impl Scalar ===

impl Scalar {
    /// Whether a JSON value equals this value.
    fn is(&self, written: &str) -> bool {
        match self {
            Scalar::Text(text) => json::text(written).is_some_and(|said| said == *text),
            Scalar::Bool(value) => written == if *value { "true" } else { "false" },
            // Compares whole numbers exactly, because beyond 2^53 several of them have the same
            // double.
            Scalar::Integer(value) => match written.parse::<i128>() {
                Ok(whole) => whole == *value,
                Err(_) => number(written).is_some_and(|number| number == *value as f64),
            },
            Scalar::Number(value) => number(written).is_some_and(|number| number == *value),
        }
    }
}

fn number(written: &str) -> Option<f64> {
    written
        .starts_with(|first: char| first == '-' || first.is_ascii_digit())
        .then(|| written.parse().ok())
        .flatten()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_are_equal_by_kind() {
        for (values, field, expected) in [
            (r#""prod""#, r#""prod""#, true),
            (r#"["a","prod"]"#, r#""pr\u006fd""#, true),
            (r#""prod""#, r#""prod2""#, false),
            (r#""""#, r#""""#, true),
            (r#""5""#, "5", false),
            ("5", r#""5""#, false),
            ("5", "5", true),
            ("5", "5.0", true),
            ("5", "5e0", true),
            ("5.5", "55e-1", true),
            ("9007199254740993", "9007199254740992", false),
            ("-1", "-1", true),
            ("18446744073709551615", "18446744073709551615", true),
            ("true", "true", true),
            ("true", r#""true""#, false),
            ("false", "null", false),
            (r#""null""#, "null", false),
            (r#""a""#, r#"["b","a"]"#, true),
            ("2", "[1, 2]", true),
            ("3", "[1,[3]]", false),
            (r#""a""#, r#"{"a":"a"}"#, false),
            (r#""a""#, "[]", false),
        ] {
            let condition = FieldTest {
                path: "f".into(),
                values: serde_json::from_str(values).unwrap(),
            };
            assert_eq!(
                condition.holds(&format!(r#"{{"f":{field}}}"#)),
                Ok(expected),
                "{values} {field}"
            );
        }
    }

    #[test]
    fn lists_of_lists_are_refused() {
        for values in [r#"[["a"]]"#, r#"[[]]"#, r#"[null]"#, "null", "{}"] {
            assert!(serde_json::from_str::<Values>(values).is_err(), "{values}");
        }
    }
}
