//! The document while it is being made.

use crate::keys::{Key, Path};
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
    pub fn at(&mut self, path: &Path) -> Option<&mut Value<'a>> {
        let (object, key) = self.place(path)?;
        object.get(key)
    }

    /// The value at a path, if it is there and not null. A fault where the path leads through something that is no object.
    pub fn present(&mut self, path: &Path) -> Result<Option<&mut Value<'a>>, Fault> {
        let Some((last, parents)) = path.keys().split_last() else { return Ok(None) };
        let mut object = self.side(path);
        for key in parents {
            let Some(value) = object.get(*key) else { return Ok(None) };
            if value.is_null() {
                return Ok(None);
            }
            object = value.as_object().ok_or(INSIDE)?;
        }
        Ok(object.get(*last).filter(|value| !value.is_null()))
    }

    pub fn take(&mut self, path: &Path) -> Option<Value<'a>> {
        let (object, key) = self.place(path)?;
        object.take(key)
    }

    /// Puts a value there, over what is there. Objects on the way are made.
    pub fn put(&mut self, rules: &Rules, path: &Path, value: Value<'a>) -> Result<(), Fault> {
        self.place_at(rules, path, value, true).map_err(|(fault, _)| fault)
    }

    /// Moves a value, if there is one, to where nothing is.
    pub fn relocate(&mut self, rules: &Rules, from: &Path, to: &Path) -> Result<(), Fault> {
        let Some(value) = self.take(from) else { return Ok(()) };
        let Err((fault, value)) = self.place_at(rules, to, value, false) else { return Ok(()) };
        // Nothing has changed on the way there, so there is a place where it was.
        let _ = self.place_at(rules, from, value, true);
        Err(fault)
    }

    fn place_at(&mut self, rules: &Rules, path: &Path, value: Value<'a>, over: bool) -> Result<(), (Fault, Value<'a>)> {
        let Some((last, parents)) = path.keys().split_last() else { return Ok(()) };
        let mut object = match path.inside {
            true => &mut self.audit,
            false => &mut self.root,
        };
        if let Some(first) = path.first().filter(|_| path.inside)
            && object.position(first).is_none()
        {
            rules.wake(first, &mut self.active);
        }
        for key in parents {
            let at = match object.position(*key) {
                Some(at) => at,
                None => {
                    object.members.push(((*key).into(), Value::Object(Object::default())));
                    object.members.len() - 1
                }
            };
            object = match object.members[at].1.as_object() {
                Some(object) => object,
                None => return Err((NO_OBJECT, value)),
            };
        }
        match object.get(*last) {
            Some(_) if !over => return Err((TAKEN, value)),
            Some(place) => *place = value,
            None => object.members.push(((*last).into(), value)),
        }
        Ok(())
    }

    /// Appends to the list at a path, unless `once` and it is there already. What is no list becomes the first element of one.
    pub fn add(&mut self, rules: &Rules, path: &Path, value: Value<'a>, once: bool) -> Result<(), Fault> {
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

    /// The object that a path's last key is in, and that key.
    fn place(&mut self, path: &Path) -> Option<(&mut Object<'a>, Key)> {
        let (last, parents) = path.keys().split_last()?;
        let mut object = self.side(path);
        for key in parents {
            object = object.get(*key)?.as_object()?;
        }
        Some((object, *last))
    }

    fn side(&mut self, path: &Path) -> &mut Object<'a> {
        if path.inside { &mut self.audit } else { &mut self.root }
    }
}
