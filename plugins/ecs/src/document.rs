//! The document while it is being mapped.

use crate::indexed::Indexed;
use crate::keys::Path;
use crate::rules::{Active, Rules};
use crate::value::{Object, Value};

/// Why a row failed.
pub type Fault = &'static str;

pub const TAKEN: Fault = "the target exists already";
pub const NO_OBJECT: Fault = "a parent of the target is not an object";
pub const INSIDE: Fault = "a test looks inside a value that is not an object";

/// `.x` is in `audit`, `x` in `root`.
#[derive(Debug)]
pub struct Document<'a> {
    pub root: Indexed<'a>,
    /// The future `teleport.audit`, at first the whole event.
    pub audit: Indexed<'a>,
    /// The rows that remain to be run.
    pub active: Active,
}

impl<'a> Document<'a> {
    /// The value at a path, if there is one.
    pub fn at(&mut self, path: &Path) -> Option<&mut Value<'a>> {
        let (first, rest) = path.keys().split_first()?;
        rest.iter()
            .try_fold(self.side(path).get(*first)?, |value, key| {
                value.as_object()?.get(*key)
            })
    }

    /// The value at a path, unless it is absent or null. Fails if the path leads through a value
    /// that is not an object.
    pub fn present(&mut self, path: &Path) -> Result<Option<&mut Value<'a>>, Fault> {
        let Some((first, rest)) = path.keys().split_first() else {
            return Ok(None);
        };
        let Some(mut value) = self.side(path).get(*first) else {
            return Ok(None);
        };
        for key in rest {
            if value.is_null() {
                return Ok(None);
            }
            match value.as_object().ok_or(INSIDE)?.get(*key) {
                Some(inner) => value = inner,
                None => return Ok(None),
            }
        }
        Ok(Some(value).filter(|value| !value.is_null()))
    }

    pub fn take(&mut self, path: &Path) -> Option<Value<'a>> {
        let (first, rest) = path.keys().split_first()?;
        let side = self.side(path);
        let Some((last, parents)) = rest.split_last() else {
            return side.take(*first);
        };
        let parent = parents
            .iter()
            .try_fold(side.get(*first)?, |value, key| value.as_object()?.get(*key))?;
        parent.as_object()?.take(*last)
    }

    /// Writes a value, and creates its parent objects. Replaces an existing value.
    pub fn put(&mut self, rules: &Rules, path: &Path, value: Value<'a>) -> Result<(), Fault> {
        self.place_at(rules, path, value, true)
            .map_err(|(fault, _)| fault)
    }

    /// Moves a value, if there is one, to a path that must be free.
    pub fn relocate(&mut self, rules: &Rules, from: &Path, to: &Path) -> Result<(), Fault> {
        let Some(value) = self.take(from) else {
            return Ok(());
        };
        let Err((fault, value)) = self.place_at(rules, to, value, false) else {
            return Ok(());
        };
        // Nothing has changed in between, so its old place is still free.
        let _ = self.place_at(rules, from, value, true);
        Err(fault)
    }

    fn place_at(
        &mut self,
        rules: &Rules,
        path: &Path,
        value: Value<'a>,
        over: bool,
    ) -> Result<(), (Fault, Value<'a>)> {
        let Some((first, rest)) = path.keys().split_first() else {
            return Ok(());
        };
        let side = if path.inside {
            &mut self.audit
        } else {
            &mut self.root
        };
        let known = side.position(*first).is_some();
        if path.inside && !known {
            rules.wake(*first, &mut self.active);
        }
        let Some((last, parents)) = rest.split_last() else {
            match side.get(*first) {
                Some(_) if !over => return Err((TAKEN, value)),
                Some(place) => *place = value,
                None => _ = side.push((*first).into(), value),
            }
            return Ok(());
        };
        if !known {
            side.push((*first).into(), Value::Object(Object::default()));
        }
        let mut object = match side.get(*first).and_then(Value::as_object) {
            Some(object) => object,
            None => return Err((NO_OBJECT, value)),
        };
        for key in parents {
            let at = match object.position(*key) {
                Some(at) => at,
                None => {
                    object
                        .members
                        .push(((*key).into(), Value::Object(Object::default())));
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

    /// Appends to the list at a path. With `once`, only if the list does not contain the value. A
    /// value that is not a list becomes the first element of one.
    pub fn add(
        &mut self,
        rules: &Rules,
        path: &Path,
        value: Value<'a>,
        once: bool,
    ) -> Result<(), Fault> {
        let Some(place) = self.at(path) else {
            return self.put(rules, path, Value::List(vec![value]));
        };
        let same = |other: &Value<'a>| {
            once && other
                .as_text()
                .is_some_and(|text| value.as_text() == Some(text))
        };
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

    fn side(&mut self, path: &Path) -> &mut Indexed<'a> {
        if path.inside {
            &mut self.audit
        } else {
            &mut self.root
        }
    }
}
