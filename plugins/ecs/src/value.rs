//! A lazy tree: values that no rule inspects stay as text of the payload.

use std::borrow::Cow;

use lockgate_plugin::json;

use crate::keys::{Key, Name};

/// A JSON value.
#[derive(Clone, Debug)]
pub enum Value<'a> {
    /// Unparsed text, borrowed from the payload, or a number that the mapper wrote.
    Raw(Cow<'a, str>),
    /// A string, unescaped.
    Text(Cow<'a, str>),
    List(Vec<Value<'a>>),
    /// A list of words from the tables.
    Words(&'static [&'static str]),
    Object(Object<'a>),
}

/// Members in arbitrary order.
#[derive(Clone, Debug, Default)]
pub struct Object<'a> {
    pub members: Vec<(Name<'a>, Value<'a>)>,
}

impl<'a> Value<'a> {
    pub fn raw(written: &'a str) -> Value<'a> {
        Value::Raw(Cow::Borrowed(written))
    }

    pub fn text(text: impl Into<Cow<'a, str>>) -> Value<'a> {
        Value::Text(text.into())
    }

    pub fn number(number: impl ToString) -> Value<'a> {
        Value::Raw(Cow::Owned(number.to_string()))
    }

    /// Foreign JSON that `serde_json` has accepted, completely parsed. Of duplicate keys, the last
    /// one wins.
    pub fn unfolded(value: &serde_json::Value, written: &str) -> Value<'a> {
        match value {
            serde_json::Value::String(text) => Value::text(text.clone()),
            serde_json::Value::Array(list) => {
                let elements = json::elements(written).flatten();
                Value::List(
                    list.iter()
                        .zip(elements)
                        .map(|(value, element)| Value::unfolded(value, element.value))
                        .collect(),
                )
            }
            serde_json::Value::Object(members) => {
                let mut object = Object::default();
                for field in json::fields(written).flatten() {
                    let key = field.key();
                    if let Some(value) = members.get(key.as_ref()) {
                        // `value` contains only the last of equal keys; for the others there is
                        // only the text.
                        let value = Value::unfolded(value, field.value);
                        object.put_named(Name::of(key.into_owned()), value);
                    }
                }
                Value::Object(object)
            }
            // Kept as text: a number may have more digits than any machine type.
            _ => Value::Raw(Cow::Owned(written.trim().to_owned())),
        }
    }

    pub fn is_null(&self) -> bool {
        matches!(self, Value::Raw(written) if written == "null")
    }

    /// The content of a string; `None` for other values.
    pub fn as_text(&self) -> Option<Cow<'a, str>> {
        match self {
            Value::Raw(Cow::Borrowed(written)) => json::text(written),
            Value::Raw(Cow::Owned(written)) => {
                json::text(written).map(|text| Cow::Owned(text.into_owned()))
            }
            Value::Text(text) => Some(text.clone()),
            Value::List(_) | Value::Words(_) | Value::Object(_) => None,
        }
    }

    /// A number, `true`, `false` or `null` as text.
    pub fn as_plain(&self) -> Option<&str> {
        match self {
            Value::Raw(written) if !written.starts_with(['"', '[', '{']) => Some(written),
            _ => None,
        }
    }

    pub fn as_number(&self) -> Option<f64> {
        self.as_plain()
            .filter(|plain| {
                plain.starts_with(|first: char| first == '-' || first.is_ascii_digit())
            })?
            .parse()
            .ok()
    }

    /// The members of an object. Parses one level on the first access.
    pub fn as_object(&mut self) -> Option<&mut Object<'a>> {
        if let Value::Raw(written) = self {
            if !written.starts_with('{') {
                return None;
            }
            *self = match written {
                Cow::Borrowed(written) => Value::Object(Object::of(written)),
                Cow::Owned(written) => Value::Object(Object::of(written).owned()),
            };
        }
        match self {
            Value::Object(object) => Some(object),
            _ => None,
        }
    }

    /// The elements, if this is a list.
    pub fn as_list(&mut self) -> Option<&mut Vec<Value<'a>>> {
        if let Value::Raw(written) = self {
            if !written.starts_with('[') {
                return None;
            }
            *self = Value::List(match written {
                Cow::Borrowed(written) => json::elements(written)
                    .flatten()
                    .map(|element| Value::raw(element.value))
                    .collect(),
                Cow::Owned(written) => json::elements(written)
                    .flatten()
                    .map(|element| Value::raw(element.value).owned())
                    .collect(),
            });
        }
        if let Value::Words(words) = self {
            *self = Value::List(words.iter().map(|word| Value::text(*word)).collect());
        }
        match self {
            Value::List(list) => Some(list),
            _ => None,
        }
    }

    /// The same without borrowing. Called only for unparsed text.
    fn owned<'b>(self) -> Value<'b> {
        match self {
            Value::Raw(written) => Value::Raw(Cow::Owned(written.into_owned())),
            Value::Text(text) => Value::Text(Cow::Owned(text.into_owned())),
            Value::List(list) => Value::List(list.into_iter().map(Value::owned).collect()),
            Value::Words(words) => Value::Words(words),
            Value::Object(object) => Value::Object(object.owned()),
        }
    }
}

impl<'a> Object<'a> {
    /// Parses the members of an object. The host guarantees that keys are unique.
    pub fn of(written: &'a str) -> Object<'a> {
        let member = |field| (Name::of_field(&field), Value::raw(field.value));
        Object {
            members: json::fields(written).flatten().map(member).collect(),
        }
    }

    #[inline]
    pub fn get(&mut self, key: Key) -> Option<&mut Value<'a>> {
        self.members
            .iter_mut()
            .find(|(name, _)| matches!(name, Name::Known(known) if *known == key))
            .map(|(_, value)| value)
    }

    #[inline]
    pub fn take(&mut self, key: Key) -> Option<Value<'a>> {
        let at = self.position(key)?;
        Some(self.members.swap_remove(at).1)
    }

    #[inline]
    pub fn position(&self, key: Key) -> Option<usize> {
        self.members
            .iter()
            .position(|(name, _)| matches!(name, Name::Known(known) if *known == key))
    }

    /// Replaces an existing value.
    pub fn put(&mut self, key: Key, value: Value<'a>) {
        match self.get(key) {
            Some(place) => *place = value,
            None => self.members.push((key.into(), value)),
        }
    }

    /// Like `put`, by name.
    pub fn put_named(&mut self, name: Name<'a>, value: Value<'a>) {
        match self.members.iter_mut().find(|(known, _)| *known == name) {
            Some((_, place)) => *place = value,
            None => self.members.push((name, value)),
        }
    }

    fn owned<'b>(self) -> Object<'b> {
        Object {
            members: self
                .members
                .into_iter()
                .map(|(name, value)| (name.into_owned(), value.owned()))
                .collect(),
        }
    }
}

/// `part` of `text`, with the same borrow as `text`.
pub fn part_of<'a>(text: &Cow<'a, str>, part: &str) -> Cow<'a, str> {
    let start = part.as_ptr().addr().wrapping_sub(text.as_ptr().addr());
    match text {
        Cow::Borrowed(text) => text
            .get(start..start.saturating_add(part.len()))
            .map_or_else(|| part.to_owned().into(), Cow::Borrowed),
        Cow::Owned(_) => Cow::Owned(part.to_owned()),
    }
}
