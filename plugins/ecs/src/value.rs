//! A light tree: what no rule looks into stays as it stands in the payload.

use std::borrow::Cow;

use lockgate_plugin::json;

/// A JSON value.
#[derive(Clone, Debug)]
pub enum Value<'a> {
    /// As it is written. Foreign text is borrowed from the payload; what the mapper itself writes here is a number.
    Raw(Cow<'a, str>),
    /// A string, unescaped.
    Text(Cow<'a, str>),
    List(Vec<Value<'a>>),
    Object(Object<'a>),
}

/// Members in no order that means anything.
#[derive(Clone, Debug, Default)]
pub struct Object<'a> {
    pub members: Vec<(Cow<'a, str>, Value<'a>)>,
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

    /// Foreign JSON that `serde_json` has accepted, unfolded all the way: it may hold a key twice, and then the last one counts.
    pub fn unfolded(value: &serde_json::Value, written: &str) -> Value<'a> {
        match value {
            serde_json::Value::String(text) => Value::text(text.clone()),
            serde_json::Value::Array(list) => {
                let elements = json::elements(written).flatten();
                Value::List(list.iter().zip(elements).map(|(value, element)| Value::unfolded(value, element.value)).collect())
            }
            serde_json::Value::Object(members) => {
                let mut object = Object::default();
                for field in json::fields(written).flatten() {
                    let key = field.key();
                    if let Some(value) = members.get(key.as_ref()) {
                        // Of equal keys the last is the one that `value` is of; for the others the written text is all there is.
                        let value = Value::unfolded(value, field.value);
                        object.put(key.into_owned(), value);
                    }
                }
                Value::Object(object)
            }
            // As it is written: a number may have more digits than fit into any machine type.
            _ => Value::Raw(Cow::Owned(written.trim().to_owned())),
        }
    }

    pub fn is_null(&self) -> bool {
        matches!(self, Value::Raw(written) if written == "null")
    }

    /// What a string says; `None` for anything else.
    pub fn as_text(&self) -> Option<Cow<'a, str>> {
        match self {
            Value::Raw(Cow::Borrowed(written)) => json::text(written),
            Value::Raw(Cow::Owned(written)) => json::text(written).map(|text| Cow::Owned(text.into_owned())),
            Value::Text(text) => Some(text.clone()),
            Value::List(_) | Value::Object(_) => None,
        }
    }

    /// A number, `true`, `false` or `null` as it is written.
    pub fn as_plain(&self) -> Option<&str> {
        match self {
            Value::Raw(written) if !written.starts_with(['"', '[', '{']) => Some(written),
            _ => None,
        }
    }

    pub fn as_number(&self) -> Option<f64> {
        self.as_plain().filter(|plain| plain.starts_with(|first: char| first == '-' || first.is_ascii_digit()))?.parse().ok()
    }

    /// The members, if this is an object: one level is unfolded if none has looked into it yet.
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
                Cow::Borrowed(written) => json::elements(written).flatten().map(|element| Value::raw(element.value)).collect(),
                Cow::Owned(written) => json::elements(written).flatten().map(|element| Value::raw(element.value).owned()).collect(),
            });
        }
        match self {
            Value::List(list) => Some(list),
            _ => None,
        }
    }

    /// The same without borrowing. Only ever called on text as it is written.
    fn owned<'b>(self) -> Value<'b> {
        match self {
            Value::Raw(written) => Value::Raw(Cow::Owned(written.into_owned())),
            Value::Text(text) => Value::Text(Cow::Owned(text.into_owned())),
            Value::List(list) => Value::List(list.into_iter().map(Value::owned).collect()),
            Value::Object(object) => Value::Object(object.owned()),
        }
    }
}

impl<'a> Object<'a> {
    /// The members of an object as it is written; the host guarantees that no key stands there twice.
    pub fn of(written: &'a str) -> Object<'a> {
        Object { members: json::fields(written).flatten().map(|field| (field.key(), Value::raw(field.value))).collect() }
    }

    pub fn get(&mut self, key: &str) -> Option<&mut Value<'a>> {
        let at = self.position(key)?;
        Some(&mut self.members[at].1)
    }

    pub fn take(&mut self, key: &str) -> Option<Value<'a>> {
        let at = self.position(key)?;
        Some(self.members.swap_remove(at).1)
    }

    pub fn position(&self, key: &str) -> Option<usize> {
        // Most keys differ in their length or their last letter, and need no more than that look.
        let last = key.as_bytes().last();
        self.members.iter().position(|(name, _)| name.len() == key.len() && name.as_bytes().last() == last && name == key)
    }

    /// Writes over what is there.
    pub fn put(&mut self, key: impl Into<Cow<'a, str>>, value: Value<'a>) {
        let key = key.into();
        match self.get(&key) {
            Some(place) => *place = value,
            None => self.members.push((key, value)),
        }
    }

    /// The value at a dotted path, if there is one.
    pub fn at(&mut self, path: &str) -> Option<&mut Value<'a>> {
        match split(path) {
            None => self.get(path),
            Some((key, rest)) => self.get(key)?.as_object()?.at(rest),
        }
    }

    fn owned<'b>(self) -> Object<'b> {
        Object { members: self.members.into_iter().map(|(key, value)| (Cow::Owned(key.into_owned()), value.owned())).collect() }
    }
}

/// The first key of a path, and what follows its dot.
#[inline]
pub fn split(path: &str) -> Option<(&str, &str)> {
    // Paths are short: a search made for long texts costs more than it saves.
    let at = path.as_bytes().iter().position(|byte| *byte == b'.')?;
    Some((&path[..at], &path[at + 1..]))
}
