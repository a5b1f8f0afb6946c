//! The document while it is being made.

use crate::rules::{Active, Rules};
use crate::value::{Object, Value};

/// Why a row failed.
pub type Fault = &'static str;

pub const TAKEN: Fault = "the target exists already";
pub const NO_OBJECT: Fault = "a parent of the target is no object";
pub const INSIDE: Fault = "a test looks inside of what is no object";

/// `.x` is in `audit`, `x` in `root`.
#[derive(Debug)]
pub struct Document<'a> {
    pub root: Object<'a>,
    /// What will be `teleport.audit`: at first the whole event.
    pub audit: Object<'a>,
    /// Rows that are still to run.
    pub active: Active,
}

impl<'a> Document<'a> {
    /// The value at a path, if there is one.
    pub fn at(&mut self, path: &str) -> Option<&mut Value<'a>> {
        let (object, path) = self.place(path);
        object.at(path)
    }

    /// The value at a path, if it is there and not null. A fault where the path leads through something that is no object.
    pub fn present(&mut self, path: &str) -> Result<Option<&mut Value<'a>>, Fault> {
        let (mut object, mut path) = self.place(path);
        while let Some((key, rest)) = path.split_once('.') {
            let Some(value) = object.get(key) else { return Ok(None) };
            if value.is_null() {
                return Ok(None);
            }
            object = value.as_object().ok_or(INSIDE)?;
            path = rest;
        }
        Ok(object.get(path).filter(|value| !value.is_null()))
    }

    pub fn take(&mut self, path: &str) -> Option<Value<'a>> {
        let (object, path) = self.place(path);
        match path.rsplit_once('.') {
            None => object.take(path),
            Some((parent, key)) => object.at(parent)?.as_object()?.take(key),
        }
    }

    /// Says whether a value could be put there, and nothing is there yet.
    pub fn free(&mut self, path: &str) -> Result<(), Fault> {
        let (mut object, mut path) = self.place(path);
        while let Some((key, rest)) = path.split_once('.') {
            let Some(value) = object.get(key) else { return Ok(()) };
            object = value.as_object().ok_or(NO_OBJECT)?;
            path = rest;
        }
        if object.get(path).is_some() { Err(TAKEN) } else { Ok(()) }
    }

    /// Puts a value there, over what is there. Objects on the way are made.
    pub fn put(&mut self, rules: &Rules, path: &'static str, value: Value<'a>) -> Result<(), Fault> {
        if let Some(inside) = path.strip_prefix('.') {
            let key = inside.split_once('.').map_or(inside, |(key, _)| key);
            rules.wake(key, &mut self.active);
        }
        let (mut object, mut path) = match path.strip_prefix('.') {
            Some(inside) => (&mut self.audit, inside),
            None => (&mut self.root, path),
        };
        while let Some((key, rest)) = path.split_once('.') {
            let at = match object.members.iter().position(|(name, _)| name == key) {
                Some(at) => at,
                None => {
                    object.members.push((key.into(), Value::Object(Object::default())));
                    object.members.len() - 1
                }
            };
            object = object.members[at].1.as_object().ok_or(NO_OBJECT)?;
            path = rest;
        }
        object.put(path, value);
        Ok(())
    }

    /// Appends to the list at a path, unless `once` and it is there already. What is no list becomes the first element of one.
    pub fn add(&mut self, rules: &Rules, path: &'static str, value: Value<'a>, once: bool) -> Result<(), Fault> {
        let Some(place) = self.at(path) else { return self.put(rules, path, Value::List(vec![value])) };
        let same = |other: &Value<'a>| once && other.as_text().is_some_and(|text| value.as_text() == Some(text));
        if let Some(list) = place.as_list() {
            if !list.iter().any(same) {
                list.push(value);
            }
        } else if !same(place) {
            let first = std::mem::replace(place, Value::List(vec![]));
            *place = Value::List(vec![first, value]);
        }
        Ok(())
    }

    fn place<'p>(&mut self, path: &'p str) -> (&mut Object<'a>, &'p str) {
        match path.strip_prefix('.') {
            Some(inside) => (&mut self.audit, inside),
            None => (&mut self.root, path),
        }
    }
}
