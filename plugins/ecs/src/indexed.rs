//! An object in which known keys are found without a search.

use crate::keys::{COUNT, Key, Name};
use crate::value::{Object, Value};

/// One of the two outermost objects, which have most of the members and are looked into most.
#[derive(Debug)]
pub struct Indexed<'a> {
    object: Object<'a>,
    /// By key: where its member stands, plus one. 0: it is not there. [`BEYOND`]: it must be
    /// searched.
    places: [u8; COUNT],
}

const BEYOND: u8 = u8::MAX;

impl<'a> Indexed<'a> {
    pub fn with_capacity(members: usize) -> Indexed<'a> {
        Indexed {
            object: Object {
                members: Vec::with_capacity(members),
            },
            places: [0; COUNT],
        }
    }

    pub fn into_object(self) -> Object<'a> {
        self.object
    }

    pub fn position(&self, key: Key) -> Option<usize> {
        match self.places[key.number()] {
            0 => None,
            BEYOND => self.object.position(key),
            place => Some(usize::from(place) - 1),
        }
    }

    pub fn get(&mut self, key: Key) -> Option<&mut Value<'a>> {
        let at = self.position(key)?;
        Some(&mut self.object.members[at].1)
    }

    pub fn take(&mut self, key: Key) -> Option<Value<'a>> {
        let at = self.position(key)?;
        self.places[key.number()] = 0;
        let (_, value) = self.object.members.swap_remove(at);
        // The last member stands there now.
        if let Some((Name::Known(moved), _)) = self.object.members.get(at) {
            self.places[moved.number()] = place(at);
        }
        Some(value)
    }

    /// Writes over what is there.
    pub fn put(&mut self, key: Key, value: Value<'a>) {
        match self.get(key) {
            Some(place) => *place = value,
            None => _ = self.push(key.into(), value),
        }
    }

    /// Adds what is not there.
    pub fn push(&mut self, name: Name<'a>, value: Value<'a>) -> &mut Value<'a> {
        let at = self.object.members.len();
        if let Name::Known(key) = name {
            self.places[key.number()] = place(at);
        }
        self.object.members.push((name, value));
        &mut self.object.members[at].1
    }

    pub fn clear(&mut self) {
        self.object.members.clear();
        self.places = [0; COUNT];
    }
}

fn place(at: usize) -> u8 {
    u8::try_from(at + 1).unwrap_or(BEYOND)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn many_members_are_found_too() {
        let (name, other) = (Key::of("name"), Key::of("version"));
        let mut object = Indexed::with_capacity(0);
        for number in 0..300 {
            object.push(Name::of(format!("x{number}")), Value::number(number));
        }
        object.push(name.into(), Value::raw("1"));
        object.put(other, Value::raw("2"));
        assert_eq!(
            object.get(name).and_then(|value| value.as_number()),
            Some(1.0)
        );
        assert_eq!(
            object.take(name).and_then(|value| value.as_number()),
            Some(1.0)
        );
        assert_eq!(
            (object.position(name), object.position(other)),
            (None, Some(300))
        );
        assert_eq!(object.into_object().members.len(), 301);
    }

    #[test]
    fn what_moves_up_is_found_again() {
        let (name, other) = (Key::of("name"), Key::of("version"));
        let mut object = Indexed::with_capacity(0);
        object.put(name, Value::raw("1"));
        object.push(Name::of("x"), Value::raw("0"));
        object.put(other, Value::raw("2"));
        object.take(name);
        assert_eq!(
            (object.position(name), object.position(other)),
            (None, Some(0))
        );
        assert_eq!(
            object.get(other).and_then(|value| value.as_number()),
            Some(2.0)
        );
    }
}
